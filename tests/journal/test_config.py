"""The settings: defaults, the file, the command line, and every way to get one wrong."""

import tomllib
from pathlib import Path

import pytest

from peer.config import TABLE, VERSION, ChainChoice, Settings, home_folder, load_settings
from wire.errors import LocalFault
from wire.network import MAIN, REGTEST, SIGNET

PEER = "/ip4/192.0.2.7/tcp/4001/p2p/16Uiu2HAmHhyQ71mqdeUK5rGgRiPSUiGEVQmeRNTEK6FcPW3FrMst"


def load(home: Path, text: str = "", **said: object) -> Settings:
    (home / "config.toml").write_text(text)
    return load_settings(home, said)


def test_defaults_need_no_file(tmp_path: Path) -> None:
    assert load_settings(tmp_path) == Settings(
        home=tmp_path,
        network=REGTEST,
        api_port=8081,
        listen=("127.0.0.1", 0),
        bootstrap=(),
        chain=ChainChoice(kind="kernel"),
        arbiters=(),
        allow_mainnet=False,
        mainnet_cap_sat=0,
        memo=True,
        chain_second=None,
        log_level="info",
        log_format="text",
        sell=(),
        gossipsub=False,
    )


def test_the_file_and_over_it_the_command_line(tmp_path: Path) -> None:
    text = f'network = "signet"\napi_port = 9000\nlisten = "0.0.0.0:4001"\nbootstrap = ["{PEER}"]\n'
    text += 'chain = "none"\nlog_level = "debug"\n'
    found = load(tmp_path, text)
    assert (found.network, found.api_port, found.listen, found.bootstrap, found.chain.kind, found.log_level) == (
        SIGNET,
        9_000,
        ("0.0.0.0", 4_001),
        (PEER,),
        "none",
        "debug",
    )
    other = PEER.replace("4001", "4002")
    over = load(tmp_path, text, network="regtest", api_port=0, listen="[::1]:0", bootstrap=[other, other], log_level=None)
    assert (over.network, over.api_port, over.listen, over.bootstrap, over.log_level) == (
        REGTEST,
        0,
        ("::1", 0),
        (other,),
        "debug",
    )


def test_public_networks_listen_on_every_interface(tmp_path: Path) -> None:
    assert load(tmp_path, network="signet", chain="none").listen == ("0.0.0.0", 0)
    assert load(tmp_path, network="signet", chain="none", listen="127.0.0.1:5").listen == ("127.0.0.1", 5)


def test_a_chain_s_password_is_not_shown(tmp_path: Path) -> None:
    found = load(tmp_path, chain="core:http://user:secret@127.0.0.1:18443")
    assert found.chain == ChainChoice(kind="core", url="http://user:secret@127.0.0.1:18443")
    assert "secret" not in repr(found)
    with pytest.raises(LocalFault) as caught:
        load(tmp_path, chain="core:http://user:secret@host")
    assert "secret" not in caught.value.sentence


def test_real_money_must_be_meant(tmp_path: Path) -> None:
    core = "core:http://u:p@127.0.0.1:8332"
    with pytest.raises(LocalFault, match="allow_mainnet = true"):
        load(tmp_path, network="main", chain=core)
    with pytest.raises(LocalFault, match="mainnet_cap_sat"):
        load(tmp_path, "allow_mainnet = true\n", network="main", chain=core)
    found = load(tmp_path, "allow_mainnet = true\nmainnet_cap_sat = 50000\n", network="main", chain=core)
    assert (found.network, found.mainnet_cap_sat) == (MAIN, 50_000)


def test_the_kernel_chain_is_for_regtest(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="regtest only"):
        load(tmp_path, network="signet")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api_port", '"8081"'),
        ("api_port", "-1"),
        ("api_port", "65536"),
        ("api_port", "true"),
        ("api_port", "1.5"),
        ("network", '"test"'),
        ("network", "1"),
        ("listen", '"localhost:1"'),
        ("listen", '"127.0.0.1"'),
        ("listen", '"256.0.0.1:1"'),
        ("listen", '"127.0.0.1:65536"'),
        ("listen", "4001"),
        ("bootstrap", f'"{PEER}"'),
        ("bootstrap", '["nowhere"]'),
        ("bootstrap", '["/ip4/1.2.3.4/tcp/1"]'),
        ("bootstrap", "[1]"),
        ("bootstrap", "[" + ", ".join(f'"{PEER}"' for _ in range(65)) + "]"),
        ("chain", '"bitcoin"'),
        ("chain", '"core:"'),
        ("chain", '"core:ftp://a:1"'),
        ("chain", '"core:http://a:b@c:99999"'),
        ("chain", '"esplora:"'),
        ("chain", '"esplora:ssl://explorer.example"'),
        ("chain", '"esplora:https://user:secret@explorer.example"'),
        ("chain", '"esplora:https://explorer.example/api?key=secret"'),
        ("chain", '"electrum:ssl://electrum.example"'),
        ("chain", '"electrum:https://electrum.example:50002"'),
        ("chain", '"electrum:ssl://electrum.example:50002/x"'),
        ("chain", '"electrum:ssl://user:secret@electrum.example:50002"'),
        ("chain", '"electrum:ssl://electrum.example:70000"'),
        ("chain_second", '"kernel"'),
        ("chain_second", '"none"'),
        ("memo", '"no"'),
        ("allow_mainnet", '"yes"'),
        ("allow_mainnet", "1"),
        ("mainnet_cap_sat", "-1"),
        ("mainnet_cap_sat", "2.5"),
        ("mainnet_cap_sat", "2100000000000001"),
        ("log_level", '"loud"'),
    ],
)
def test_a_bad_value_is_named_with_file_and_key(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(LocalFault) as caught:
        load(tmp_path, f"{key} = {value}\n")
    assert caught.value.code == "bad-config"
    assert f"{tmp_path / 'config.toml'}: {key}: " in caught.value.sentence
    assert "\n" not in caught.value.sentence
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("core", "http://user:password@127.0.0.1:8332"),
        ("esplora", "https://explorer.example/api"),
        ("esplora", "http://127.0.0.1:3002"),
        ("electrum", "ssl://electrum.example:50002"),
        ("electrum", "tcp://[::1]:50001"),
    ],
)
def test_either_chain_may_be_behind_any_kind_of_server(tmp_path: Path, kind: str, url: str) -> None:
    settings = load(tmp_path, f'chain = "{kind}:{url}"\nchain_second = "{kind}:{url}"\n')
    assert settings.chain == settings.chain_second == ChainChoice(kind=kind, url=url)
    assert url not in repr(settings)


def test_a_bad_option_is_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match=r"^--listen: it takes"):
        load(tmp_path, listen="everywhere")


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    for text in ("api-port = 1\n", "[network]\nname = 'main'\n", "home = '/'\n"):
        with pytest.raises(LocalFault) as caught:
            load(tmp_path, text)
        assert str(tmp_path / "config.toml") in caught.value.sentence


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    with pytest.raises(LocalFault, match="not valid TOML"):
        load(tmp_path, "api_port 8081")
    (tmp_path / "config.toml").write_bytes(b"\xff")
    with pytest.raises(LocalFault, match="not valid TOML"):
        load_settings(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(LocalFault, match="cannot be read"):
        load_settings(tmp_path)


def test_where_the_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITWRK_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder(None) == tmp_path / ".bitwrk"
    assert home_folder(Path("~/x")) == tmp_path / "x"
    monkeypatch.setenv("BITWRK_HOME", str(tmp_path / "named"))
    assert home_folder(None) == tmp_path / "named"
    assert home_folder(tmp_path / "a" / ".." / "b") == tmp_path / "b"
    monkeypatch.chdir(tmp_path)
    assert home_folder(Path("here")) == tmp_path / "here"


def test_defaults_in_the_table_are_themselves_valid() -> None:
    for setting in TABLE:
        if setting.default is not None:
            setting.read(setting.default)


def test_one_version() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


def test_the_bridge_is_a_table_and_off(tmp_path: Path) -> None:
    assert not load(tmp_path, "[bridge]\n").gossipsub
    assert not load(tmp_path, "[bridge]\ngossipsub = false\n").gossipsub
    assert load(tmp_path, "[bridge]\ngossipsub = true\n").gossipsub
    assert load(tmp_path, bridge={"gossipsub": True}).gossipsub
    for text in ("bridge = true\n", "[bridge]\ngossipsub = 1\n", "[bridge]\nother = true\n"):
        with pytest.raises(LocalFault, match=r"config\.toml: bridge"):
            load(tmp_path, text)
