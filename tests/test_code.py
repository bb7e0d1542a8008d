import shutil

import pytest

from mllm.core import code_digest


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    shutil.copytree(code_digest.SCRIPTS, tmp_path / "scripts")
    monkeypatch.setattr(code_digest, "SCRIPTS", tmp_path / "scripts")

    def digest(name):
        code_digest._meaning.cache_clear()
        return code_digest.code_digest(name)

    yield tmp_path / "scripts", digest
    code_digest._meaning.cache_clear()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_comments_and_docstrings_mean_nothing(scripts):
    folder, digest = scripts
    before = {s.stem: digest(s.stem) for s in folder.glob("*.py")}
    for path in folder.rglob("*.py"):
        text = path.read_text()
        path.write_text("# a comment\n\n" + text.replace('"""', '"""Another word. ', 1) + "\n\n# and one more\n")
    assert {s: digest(s) for s in before} == before


def test_an_edit_reaches_exactly_the_scripts_that_use_the_module(scripts):
    folder, digest = scripts
    names = sorted(s.stem for s in folder.glob("*.py"))
    before = {s: digest(s) for s in names}
    edit(folder / "mllm/evaluation/bootstrap.py", "0.025, 0.975", "0.05, 0.95")
    assert [s for s in names if digest(s) != before[s]] == ["score"]
    before = {s: digest(s) for s in names}
    edit(folder / "mllm/prediction/run_model.py", '"cpu": 1024', '"cpu": 2048')
    assert {s for s in names if digest(s) != before[s]} == {"predict", "export"}
    before = {s: digest(s) for s in names}
    edit(folder / "mllm/core/messages.py", "> 10:", "> 20:")
    assert all(digest(s) != before[s] for s in names)


def test_an_edit_of_the_script_itself_counts(scripts):
    folder, digest = scripts
    before = digest("blend")
    edit(folder / "blend.py", "logp = [", "logp = 1 * [")
    assert digest("blend") != before
