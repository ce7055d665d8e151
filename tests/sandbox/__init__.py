"""What a program in the sandbox tries and cannot do. Everything here is a real attempt, looked at from outside."""
