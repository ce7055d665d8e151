"""The simulator: repeatable runs, rules that hold under loss and malice, checkers that can fail, models against exact ones."""
