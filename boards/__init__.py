"""What board is this, what may it do, what did it measure."""
