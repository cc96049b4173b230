"""Members of a batch as files, read as they come.

``MemberFile.read`` takes pieces that are cut anywhere and gives what was read of them: ``Member`` as they are to be
registered, and ``Refused`` lines. ``MemberFile.errors`` writes the next piece of the file of errors of refused lines,
in the format of what was sent; ``Member.refuse`` refuses one that was read and cannot be registered::

    file = MemberFile(FileFormat.CSV)
    pieces = Pieces(first_request, other_requests, pace)
    async for found in file.read(pieces.read(), whole=lambda: pieces.whole):
        for one in found:
            if isinstance(one, Refused): ...
            elif (problem := why_not(one)) is not None: refused += one.refuse(problem)
        errors = file.errors(refused)

There is a list for each piece, which may be empty: the first one says that the file can be read. Lines that are counted
are ``Member.lines``, and one for each ``Refused``.
"""
