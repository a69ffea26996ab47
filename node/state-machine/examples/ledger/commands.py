"""What clients submit and ask, as text.

Operations, and their results:

    open ACCOUNT AMOUNT            done, or refused: ...
    transfer ID FROM TO AMOUNT     done, or refused: ...

Queries, and their answers:

    balance ACCOUNT    the balance; OUT_OF_RANGE where there is no such account
    total              the money in all accounts together
    transfers          how many transfers were done
    journal INDEX      the transfers done from that operation on, a line each: INDEX ID FROM TO AMOUNT; 250 at most

Names and IDs are 1 to 64 letters, digits, dots, hyphens and underscores; an amount is a number without a sign. An operation that is none of
these changes nothing, and its result begins with `invalid`.
"""

import re
from dataclasses import dataclass
from typing import Union

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Shorter than what sqlite's integers hold.
NUMBER = re.compile(r"[0-9]{1,18}")


class Invalid(Exception):
    """There is no such operation or query."""


@dataclass(frozen=True)
class Open:
    account: str
    amount: int


@dataclass(frozen=True)
class Transfer:
    id: str
    payer: str
    payee: str
    amount: int


@dataclass(frozen=True)
class Balance:
    account: str


@dataclass(frozen=True)
class Total:
    pass


@dataclass(frozen=True)
class Transfers:
    pass


@dataclass(frozen=True)
class Journal:
    first: int


Command = Union[Open, Transfer]
Query = Union[Balance, Total, Transfers, Journal]


def parse_command(operation: bytes) -> Command:
    words = _words(operation)
    if len(words) == 3 and words[0] == "open":
        return Open(_name(words[1]), _number(words[2]))
    if len(words) == 5 and words[0] == "transfer":
        _, id, payer, payee, amount = words
        return Transfer(_name(id), _name(payer), _name(payee), _number(amount))
    raise Invalid("open ACCOUNT AMOUNT, or transfer ID FROM TO AMOUNT")


def parse_query(query: bytes) -> Query:
    words = _words(query)
    if words == ["total"]:
        return Total()
    if words == ["transfers"]:
        return Transfers()
    if len(words) == 2 and words[0] == "balance":
        return Balance(_name(words[1]))
    if len(words) == 2 and words[0] == "journal":
        return Journal(_number(words[1]))
    raise Invalid("the ledger knows the queries balance ACCOUNT, total, transfers and journal INDEX")


def _words(text: bytes) -> "list[str]":
    try:
        return text.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise Invalid("not all of it is ASCII") from None


def _name(word: str) -> str:
    if NAME.fullmatch(word) is None:
        raise Invalid("a name is 1 to 64 letters, digits, dots, hyphens and underscores")
    return word


def _number(word: str) -> int:
    if NUMBER.fullmatch(word) is None:
        raise Invalid("a number is 1 to 18 digits")
    return int(word)
