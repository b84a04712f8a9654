"""Each unit is held out or not by a secret of its own."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_train.errors import StageLost
from nss_train.privacy.coins import HoldoutKey, hkdf, identities
from tests.unit.privacy.tables import private_table

KEY = HoldoutKey(secret=bytes(range(32)))
TEXTS = st.lists(st.text('ab\0,"é', max_size=4), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("secret", "salt", "info", "size", "expected"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(80)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e"  # noqa: ISC004
            "09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
    ids=["A.1", "A.2", "A.3"],
)
def test_keys_are_derived_as_in_rfc_5869(secret: str, salt: str, info: str, size: int, expected: str) -> None:
    found = hkdf(bytes.fromhex(secret), salt=bytes.fromhex(salt), info=bytes.fromhex(info), size=size)
    assert found.hex() == expected


@given(share=st.floats(0, 1), identity=st.binary(max_size=20))
def test_a_coin_compares_the_mac_with_the_share(share: float, identity: bytes) -> None:
    coin = KEY.holdout()
    mac = int.from_bytes(hmac.digest(coin.key, identity, hashlib.sha256), "big")
    assert coin.toss([identity], share=share).tolist() == [mac < int(share * 2**200) * 2**56]


def test_about_a_share_of_many_is_held_out() -> None:
    heads = KEY.holdout().toss((b"%d" % number for number in range(20_000)), share=0.05)
    # Six standard deviations of a binomial.
    assert abs(heads.sum() - 1000) < 6 * np.sqrt(20_000 * 0.05 * 0.95)


def test_holdout_and_validation_are_independent_of_each_other() -> None:
    units = [b"%d" % number for number in range(20_000)]
    held, validated = (coin.toss(units, share=0.5) for coin in (KEY.holdout(), KEY.validation()))
    assert abs((held & validated).sum() - 5000) < 6 * np.sqrt(20_000 * 0.25 * 0.75)


@given(texts=TEXTS, more=TEXTS, data=st.data())
def test_nobody_s_coin_depends_on_who_else_is_there(
    texts: list[str], more: list[str], data: st.DataObject
) -> None:
    both = data.draw(st.permutations(texts + more))

    def sides(values: list[str]) -> dict[str, bool]:
        table = private_table({"name": values})
        found = identities(tuple(table.raw.items()), np.arange(len(values)))
        return dict(zip(values, KEY.holdout().toss(found, share=0.5).tolist(), strict=True))

    alone, among = sides(texts), sides(both)
    assert alone == {text: among[text] for text in alone}


@given(
    left=st.tuples(st.text(max_size=3), st.text(max_size=3)),
    right=st.tuples(st.text(max_size=3), st.text(max_size=3)),
)
def test_records_have_the_same_identity_only_if_all_cells_are_the_same(
    left: tuple[str, str], right: tuple[str, str]
) -> None:
    table = private_table({"b": [left[0], right[0]], "a": [left[1], right[1]]})
    one, other = identities(tuple(table.raw.items()), np.arange(2))
    assert (one == other) == (left == right)
    assert [one, other] == list(identities(tuple(reversed(table.raw.items())), np.arange(2)))


def test_the_key_shows_nowhere() -> None:
    coin = KEY.holdout()
    for shown in (repr(KEY), str(KEY), repr(coin), KEY.name()):
        assert KEY.secret.hex()[:8] not in shown
        assert repr(KEY.secret)[2:10] not in shown
    assert KEY.name() != HoldoutKey.draw().name()
    assert KEY.name() == HoldoutKey(secret=KEY.secret).name()


def test_a_damaged_key_is_no_key() -> None:
    with pytest.raises(StageLost, match="32 bytes"):
        HoldoutKey(secret=b"short")
