"""What all trainers share: arguments, batches, adapters, checkpoints, memory."""
