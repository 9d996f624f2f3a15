"""Tables of what is wrong with an input, and of the message that a user then reads."""


class BadInputs(dict):
    """name -> (function that makes the input in a folder and opens it, regular expression of the message)."""

    def __call__(self, name, message):
        """One row: @bad("empty file", "the file is empty")."""

        def add(make):
            self[name] = (make, message)
            return make

        return add
