"""Strict reading: the closed set of failures, one JSON parser, and member checks."""

import re

from primitives import b64u_decode

MAX_DEPTH = 8


class Failure(Exception):
    """One of format, limit, signature, factor, unwrap, mac, absent; and why."""

    def __init__(self, word, why):
        super().__init__("%s: %s" % (word, why))
        self.word, self.why = word, why


def check(condition, why, word="format"):
    if not condition:
        raise Failure(word, why)


_STRING = re.compile(r'"([^"]*)"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?![0-9.eE+-])")
_WORDS = (("true", True), ("false", False), ("null", None))


class Number:
    """A JSON number of any length, kept as its text."""

    def __init__(self, text):
        self.text = text


def parse_json(data, what):
    """The value of JSON bytes; characters first, then grammar and depth in one pass."""
    check(
        all(0x20 <= b <= 0x7E and b != 0x5C for b in set(data)),
        what + ": a character outside 0x20-0x7E, or \\",
    )
    text = data.decode("ascii")
    value, at = _value(text, _skip(text, 0), 1, what)
    check(_skip(text, at) == len(text), what + ": bytes after the JSON text")
    return value


def _skip(text, at):
    while at < len(text) and text[at] == " ":
        at += 1
    return at


def _value(text, at, depth, what):
    head = text[at : at + 1]
    if head in ("{", "["):
        check(depth <= MAX_DEPTH, what + ": nested deeper than 8", "limit")
        return (_object if head == "{" else _array)(text, at, depth, what)
    if head == '"':
        match = _STRING.match(text, at)
        check(match, what + ": a string without its end")
        return match.group(1), match.end()
    match = _NUMBER.match(text, at)
    if match:
        return Number(match.group(0)), match.end()
    for word, value in _WORDS:
        if text.startswith(word, at):
            return value, at + len(word)
    raise Failure("format", "%s: not JSON at byte %d" % (what, at))


def _object(text, at, depth, what):
    members, at = {}, _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return members, at + 1
    while True:
        match = _STRING.match(text, at)
        check(match, what + ": a member's name was expected")
        name, at = match.group(1), _skip(text, match.end())
        check(name not in members, "%s: member %s twice" % (what, name))
        check(text[at : at + 1] == ":", what + ": a colon was expected")
        members[name], at = _value(text, _skip(text, at + 1), depth + 1, what)
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return members, at + 1
        check(text[at : at + 1] == ",", what + ": a comma was expected")
        at = _skip(text, at + 1)


def _array(text, at, depth, what):
    items, at = [], _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return items, at + 1
    while True:
        item, at = _value(text, at, depth + 1, what)
        items.append(item)
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return items, at + 1
        check(text[at : at + 1] == ",", what + ": a comma was expected")
        at = _skip(text, at + 1)


class Members:
    """An object with exactly these members; every getter checks type and form."""

    def __init__(self, value, what, required, optional=""):
        check(isinstance(value, dict), what + ": not an object")
        names, extra = set(required.split()), set(optional.split())
        for name in names - set(value):
            raise Failure("format", "%s: no member %s" % (what, name))
        for name in set(value) - names - extra:
            raise Failure("format", "%s: unknown member %s" % (what, name))
        self._value, self._what = value, what

    def __contains__(self, name):
        return name in self._value

    def _where(self, name):
        return "%s.%s" % (self._what, name)

    def get(self, name, kind):
        value = self._value[name]
        check(type(value) is kind, self._where(name) + ": wrong type")
        return value

    def text(self, name, pattern=r".*"):
        value = self.get(name, str)
        check(re.fullmatch(pattern, value), self._where(name) + ": not of the permitted form")
        return value

    def data(self, name, *sizes):
        """Canonical base64url of one of these sizes; any size when none is given."""
        value = b64u_decode(self.get(name, str))
        check(value is not None, self._where(name) + ": not canonical base64url")
        check(not sizes or len(value) in sizes, self._where(name) + ": wrong size")
        return value

    def number(self, name, low, high, word="limit"):
        text = self.get(name, Number).text
        good = len(text) <= 12 and low <= int(text) <= high
        check(good, self._where(name) + ": out of range", word)
        return int(text)

    def raw(self, name):
        return self._value[name]
