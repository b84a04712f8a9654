"""What Redis holds, and what may be lost: queues, leases, the registry of workers, the guard of messages."""
