"""Every form of a file in docs/data.md gives what the table says."""

import pytest
from forms_of_files import code, listed, outcome

FORMS = listed()


@pytest.mark.parametrize("form", FORMS, ids=[f"{number}-{form.form}" for number, form in enumerate(FORMS, start=1)])
def test_a_form_gives_what_the_table_says(tmp_path, capsys, form):
    given = outcome(form, tmp_path, lambda: capsys.readouterr().out)
    if form.gives.startswith("stops: "):
        (line,) = given
        assert "\n" not in line
        assert code(form.gives)[0] in line
    else:
        assert given == code(form.gives)


def test_the_table_is_long_and_has_no_form_twice():
    assert len(FORMS) >= 60
    assert len({(form.file, form.content, form.options) for form in FORMS}) == len(FORMS)
    assert all(form.form and code(form.gives) for form in FORMS)
