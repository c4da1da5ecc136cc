from regbench.errors import one_line


def test_an_error_is_one_line_that_can_be_written_anywhere():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(ValueError()) == "ValueError"
    name = b"b\xe4r.png".decode("utf-8", "surrogateescape")
    assert one_line(OSError(f"{name} is missing")).encode() == b"b?r.png is missing"
