"""What a private training may cost and has cost: plan, accountant, ledgers, results."""
