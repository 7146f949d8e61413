"""Settings: where each comes from, and what is said of a broken file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.errors import InvalidInputError
from dmq_core.settings.settings import Flags, Password, Setting, Source, load_settings, without_credentials


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dmq").mkdir()
    return tmp_path


def write(home: Path, text: str, mode: int = 0o600) -> Path:
    file = home / "dmq" / "config.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def environment(home: Path, **variables: str) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(home), **variables}


def test_without_anything_the_cluster_is_called_dmq(home: Path) -> None:
    settings = load_settings(environment=environment(home))
    assert settings.cluster == Setting("dmq", Source.DEFAULT, "")
    assert settings.urls.value == ()
    assert settings.read_only == Setting(False)
    assert settings.credentials() is None
    assert not settings.file_exists


def test_flag_beats_environment_beats_file(home: Path) -> None:
    file = write(home, 'cluster = "from-file"\nread_only = true\n')
    from_file = load_settings(environment=environment(home))
    assert from_file.cluster == Setting("from-file", Source.FILE, f"{file}:1")
    assert from_file.read_only == Setting(True, Source.FILE, f"{file}:2")

    variables = environment(home, DMQ_CLUSTER="from-env", DMQ_READ_ONLY="0")
    from_environment = load_settings(environment=variables)
    assert from_environment.cluster == Setting("from-env", Source.ENVIRONMENT, "DMQ_CLUSTER")
    assert from_environment.read_only == Setting(False, Source.ENVIRONMENT, "DMQ_READ_ONLY")

    from_flag = load_settings(Flags(cluster="from-flag", read_only=True), variables)
    assert from_flag.cluster == Setting("from-flag", Source.FLAG, "--cluster")
    assert from_flag.read_only == Setting(True, Source.FLAG, "--read-only")


def test_a_url_flag_beats_a_cluster_of_the_environment(home: Path) -> None:
    settings = load_settings(Flags(urls=("http://a:1", "http://b:2")), environment(home, DMQ_CLUSTER="mine"))
    assert settings.urls == Setting(("http://a:1", "http://b:2"), Source.FLAG, "--url")
    assert settings.cluster.source is Source.DEFAULT


def test_several_urls_may_stand_in_one_variable(home: Path) -> None:
    settings = load_settings(environment=environment(home, DMQ_URL=" amqp://a:1, http://b:2  http://c:3 "))
    assert settings.urls.value == ("amqp://a:1", "http://b:2", "http://c:3")


def test_a_cluster_and_a_url_on_one_level_contradict(home: Path) -> None:
    with pytest.raises(InvalidInputError, match="--cluster and --url name two different clusters"):
        load_settings(Flags(cluster="a", urls=("http://b:1",)), environment(home))


def test_a_profile_brings_urls_user_tls_and_read_only(home: Path) -> None:
    write(
        home,
        '[profiles.prod]\nurls = ["https://one:15671", "https://two:15671"]\nuser = "watcher"\n'
        'password_env = "PROD_PASSWORD"\nca_file = "ca.pem"\nverify = false\nread_only = true\n',
    )
    settings = load_settings(Flags(profile="prod"), environment(home))
    assert settings.urls.value == ("https://one:15671", "https://two:15671")
    assert settings.user.value == "watcher"
    assert settings.read_only.value is True
    assert settings.tls().ca_file == str(home / "dmq" / "ca.pem")
    assert settings.tls().verify is False


def test_a_profile_of_the_environment_never_lends_its_password_to_a_url_flag(home: Path) -> None:
    write(home, '[profiles.prod]\nurls = "https://one:15671"\nuser = "u"\npassword_env = "P"\n')
    settings = load_settings(Flags(urls=("http://elsewhere:1",)), environment(home, DMQ_PROFILE="prod"))
    assert settings.user.value is None
    assert settings.password.value is None


def test_a_password_command_gives_its_first_line(home: Path) -> None:
    write(home, """[profiles.p]\nurls = "http://a:1"\nuser = "u"\npassword_command = "printf 's3 cret\\\\nsecond'"\n""")
    credentials = load_settings(Flags(profile="p"), environment(home)).credentials()
    assert credentials is not None
    assert (credentials.username, credentials.password) == ("u", "s3 cret")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (("/nonexistent/tool",), "cannot be run"),
        (("false",), "ended with status 1"),
        (("true",), "printed no password"),
        (("printf", "\\377"), "printed no password"),
    ],
)
def test_a_password_command_that_fails_is_told_in_a_line(command: tuple[str, ...], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        Password(command=command).reveal()
    assert caught.value.hint


def test_dmq_password_beats_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, '[profiles.p]\nurls = "http://a:1"\npassword = "filed"\n')
    monkeypatch.setenv("DMQ_PASSWORD", "from-env")
    credentials = load_settings(Flags(profile="p"), environment(home, DMQ_PASSWORD="from-env")).credentials()
    assert credentials is not None
    assert credentials.password == "from-env"


def test_no_repr_of_settings_shows_a_password(home: Path) -> None:
    write(home, '[profiles.p]\nurls = "http://u:hunter2@a:1"\npassword = "hunter2"\n')
    settings = load_settings(Flags(profile="p"), environment(home))
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(Flags(urls=("http://u:hunter2@a:1",)))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("cluster = \n", 1, "Invalid value"),
        ('cluster = "a"\n\nread_only = maybe\n', 3, "Invalid value"),
        ('cluster = "a"\nread_only = "yes"\n', 2, "read_only must be true or false"),
        ('clutser = "a"\n', 1, "'clutser' is no setting here"),
        ("[profiles.p]\nurls = []\n", 2, "urls must be a string or a list of strings"),
        ('[profiles.p]\nuser = "x"\n', 1, "needs one of 'cluster' and 'urls'"),
        ('[profiles.p]\ncluster = "x"\npassword = "a"\npassword_env = "B"\n', 4, "both password and password_env"),
        ('[profiles.p]\ncluster = "x"\nkey_file = "k"\n', 3, "a key_file without a cert_file"),
        ('[profiles]\np = "x"\n', 2, "profiles.p is no table"),
        ('cluster = "a\n', 1, ""),
        ('cluster = """a\n', 2, ""),
    ],
)
def test_a_broken_file_is_told_with_its_line(home: Path, text: str, line: int, problem: str) -> None:
    file = write(home, text)
    with pytest.raises(InvalidInputError) as caught:
        load_settings(environment=environment(home))
    assert caught.value.what.startswith(f"{file}: line {line}: ")
    assert problem in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_a_file_that_is_not_text_names_the_line(home: Path) -> None:
    (home / "dmq" / "config.toml").write_bytes(b'cluster = "a"\nprofile = "\xff"\n')
    with pytest.raises(InvalidInputError, match="line 2: is not UTF-8"):
        load_settings(environment=environment(home))


def test_a_folder_in_the_place_of_the_file_is_told(home: Path) -> None:
    (home / "dmq" / "config.toml").mkdir()
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_settings(environment=environment(home))


def test_a_file_with_a_password_must_be_private(home: Path) -> None:
    write(home, '[profiles.p]\nurls = "http://a:1"\npassword = "x"\n', mode=0o644)
    with pytest.raises(InvalidInputError, match="line 3: holds a password") as caught:
        load_settings(environment=environment(home))
    assert caught.value.hint.startswith("chmod 600")


def test_an_unknown_profile_names_the_known_ones(home: Path) -> None:
    write(home, '[profiles.one]\ncluster = "x"\n[profiles.two]\ncluster = "y"\n')
    with pytest.raises(InvalidInputError) as caught:
        load_settings(environment=environment(home, DMQ_PROFILE="three"))
    assert "'three'" in caught.value.what
    assert "one, two" in caught.value.hint


def test_a_word_that_is_neither_yes_nor_no_is_refused(home: Path) -> None:
    with pytest.raises(InvalidInputError, match="DMQ_READ_ONLY"):
        load_settings(environment=environment(home, DMQ_READ_ONLY="perhaps"))


@given(st.text(max_size=8), st.text(min_size=1, max_size=12), st.sampled_from(["amqp://", "https://", ""]))
def test_no_url_is_ever_shown_with_its_password(user: str, password: str, scheme: str) -> None:
    assert without_credentials(f"{scheme}{user}:{password}@host:5672/v") == f"{scheme}host:5672/v"
