"""The process around the stages: its steps in Celery's blueprints, its heartbeat, its end."""
