"""How often a function is called."""


def calls_of(monkeypatch, owner, name):
    """Return a list that grows with the arguments of every call of a function."""
    calls, original = [], getattr(owner, name)

    def counted(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls
