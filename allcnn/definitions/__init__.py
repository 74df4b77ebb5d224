"""How settings and the objects that vary are declared; imports nothing heavy."""
