"""ClickHouse's HTTP protocol, the part without a socket and without an engine.

What belongs here: reading URL, headers and body into a :class:`QueryRequest`, splitting an INSERT from its data,
the HTTP status of a ClickHouse error code, the shape of an error in a body. Source of the rules: ClickHouse's
`HTTPHandler` and `exceptionCodeToHTTPStatus`, and what the client `clickhouse-connect` sends.
"""

from __future__ import annotations

import email.parser
import email.policy
import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

#: URL parameters that the HTTP handler keeps for itself: they are not settings of the engine.
RESERVED: Final = frozenset((
    "query", "database", "default_format", "user", "password", "quota_key", "query_id", "session_id", "session_timeout",
    "session_check", "stacktrace", "buffer_size", "wait_end_of_query", "compress", "decompress",
    "client_protocol_version", "role", "roles", "close_session", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "enable_http_compression", "http_response_headers", "add_http_cors_header",
    "http_zlib_compression_level", "cancel_http_readonly_queries_on_client_close",
))  # fmt: skip

#: ClickHouse error code -> HTTP status; others are 500 (`exceptionCodeToHTTPStatus`).
_STATUS: Final = {
    **dict.fromkeys(
        (4, 6, 26, 27, 33, 36, 38, 41, 42, 43, 44, 50, 53, 62, 69, 70, 72, 117, 131, 153, 158, 386, 456, 457), 400
    ),
    **dict.fromkeys((16, 46, 47, 60, 81, 115), 404),
    **dict.fromkeys((164, 192, 193, 194, 497, 516), 403),
    **dict.fromkeys((202, 252), 503),
    159: 408,
    48: 501,
}

_CODE = re.compile(r"Code: (\d+)\. ")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# A lexer just large enough to skip what cannot be a keyword: strings, quoted names, comments.
_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#[!\x20][^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:\\.|''|[^'\\])*'|\xe2\x80\x98.*?\xe2\x80\x99|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |(?P<name>`(?:\\.|``|[^`\\])*`|"(?:\\.|""|[^"\\])*"|\xe2\x80\x9c.*?\xe2\x80\x9d)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
#: What reaches files and programs of the host without a privilege that the engine could refuse.
_SUSPICIOUS = re.compile(rb"file|python|executable|sqlite|\\", re.IGNORECASE)
_FUNCTIONS_OF_THE_HOST: Final = frozenset((b"file", b"python", b"executable", b"executablepool", b"sqlite"))


class ClickHouseError(Exception):
    """An error with ClickHouse's code: ``Code: 60. DB::Exception: … (UNKNOWN_TABLE)``."""

    def __init__(self, message: str, code: int | None = None, status: int | None = None) -> None:
        start = message.find("Code: ")
        text = message[start:].strip() if start >= 0 else message.strip()
        found = _CODE.match(text)
        self.code = code if code is not None else int(found.group(1)) if found else 1001  # 1001: STD_EXCEPTION
        self.status = status or _STATUS.get(self.code, 500)
        self.text = text if found else f"Code: {self.code}. DB::Exception: {text}"
        super().__init__(self.text)


@dataclass(frozen=True)
class QueryRequest:
    """One request: *statement* is the URL's ``query``, a line feed, and the body, as ClickHouse joins them."""

    statement: bytes
    database: str = ""
    default_format: str = "TabSeparated"
    query_id: str = ""
    buffered: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Insert:
    """An INSERT that carries data: table and columns, its SETTINGS clause, the input format, where the data begin."""

    head: str
    settings: str
    input_format: str
    data_offset: int

    def from_file(self, path: str) -> str:
        """The statement that reads the data from a file."""
        return f"{self.head} FROM INFILE {quote(path)} {self.settings} FORMAT {self.input_format}"


def parse_request(target: str, headers: Mapping[str, str] | Message, body: bytes) -> QueryRequest:
    """Read URL, headers and (already decompressed) body. Raises :class:`ClickHouseError` for what is not served."""
    fields = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    if (headers.get("Content-Type") or "").startswith("multipart/form-data"):
        form = _multipart(headers["Content-Type"], body)
        fields.update(form)
        body = b""
    if fields.get("decompress") == "1" or fields.get("compress") == "1":
        raise ClickHouseError(
            "ClickHouse's own block compression (compress=1, decompress=1) is not served on loopback; "
            "send plain bytes or use Content-Encoding",
            code=48,
        )
    query = fields.get("query", "").encode()
    settings = {k: v for k, v in fields.items() if k not in RESERVED and not k.startswith("param_")}
    for name in settings:
        if not _NAME.match(name):
            raise ClickHouseError(f"{name!r} in the URL is not the name of a setting", code=115)
    return QueryRequest(
        statement=query + b"\n" + body if query and body else query or body,
        database=fields.get("database") or headers.get("X-ClickHouse-Database") or "",
        default_format=fields.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        query_id=fields.get("query_id", ""),
        buffered=fields.get("wait_end_of_query") in ("1", "true"),
        settings=settings,
        parameters={k.removeprefix("param_"): v for k, v in fields.items() if k.startswith("param_")},
    )


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    """Text fields of a form (long parameters arrive so). Files would be external tables: refused."""
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    out: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() or not isinstance(name, str):
            raise ClickHouseError("external tables (files in a form) are not served by the embedded engine", code=48)
        payload = part.get_payload(decode=True)
        out[name] = payload.decode() if isinstance(payload, bytes) else str(payload)
    return out


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo Content-Encoding. *limit* bounds the result. Raises :class:`ClickHouseError`."""
    encoding = encoding.strip().lower()
    try:
        if encoding in ("", "identity"):
            return body
        if encoding == "gzip":
            plain = gzip.decompress(body)
        elif encoding == "deflate":
            plain = zlib.decompress(body)
        elif encoding in ("lz4", "zstd"):
            codec = "lz4" if encoding == "lz4" else "zstd"
            with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
                plain = stream.read(limit + 1)
        else:
            raise ClickHouseError(
                f"Content-Encoding {encoding!r} is not known; use gzip, deflate, lz4 or zstd", code=48
            )
    except (OSError, EOFError, zlib.error) as error:
        raise ClickHouseError(f"the body is not valid {encoding}: {error}", code=354, status=400) from error
    if len(plain) > limit:
        raise ClickHouseError(f"the decompressed body is larger than {limit} bytes", code=241, status=413)
    return plain


def split_insert(statement: bytes) -> Insert | None:
    """Tell an INSERT with inline data from every other statement (None: let the engine parse the whole text).

    The head ends at the first FORMAT or VALUES outside brackets. ``INSERT … SELECT`` and ``FROM INFILE`` give None.
    Without FORMAT the data are read as Values, as ClickHouse does.
    """
    words = depth = position = 0
    settings = None  # where the clause begins
    while (token := _TOKEN.match(statement, position)) is not None:
        position = token.end()
        if token.lastgroup == "skip":
            continue
        text = token.group()
        if words == 0 and text.upper() != b"INSERT":
            return None
        words += 1
        if text in (b"(", b")"):
            depth += 1 if text == b"(" else -1
        if depth or token.lastgroup != "word":
            continue
        keyword = text.upper()
        if keyword in (b"SELECT", b"WITH", b"FROM", b"INFILE", b"WATCH"):
            return None
        if keyword == b"SETTINGS":
            settings = token.start()
        if keyword in (b"VALUES", b"FORMAT"):
            head, clause = statement[: settings or token.start()], statement[settings or token.start() : token.start()]
            if keyword == b"VALUES":
                return Insert(head.decode(), clause.decode(), "Values", position)
            name = re.compile(rb"\s*([A-Za-z0-9_]+)[ \t\f]*\r?\n?").match(statement, position)
            return name and Insert(head.decode(), clause.decode(), name.group(1).decode(), name.end())
    return None


def refuse_host_access(text: bytes) -> None:
    """Raise :class:`ClickHouseError` when *text* would read or write files of the host or run its programs.

    Table functions, engines and dictionaries are refused by grants; this is about what the engine grants to
    everybody, or refuses too late: the function ``file``, the table functions over programs and Python, ``sqlite``
    (which makes its file first), INTO OUTFILE, FROM INFILE.
    """
    if not _SUSPICIOUS.search(text):
        return
    before = b""  # the word or name before this token
    inside_apply = False
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "skip":
            continue
        word = token.group()
        if token.lastgroup == "name":
            word = word[3:-3] if word.startswith(b"\xe2") else word[1:-1]
            if b"\\" in word:
                raise _denied("a quoted name with a backslash")
        elif token.lastgroup == "word" and (before + b" " + word).upper() in (b"INTO OUTFILE", b"FROM INFILE"):
            raise _denied((before + b" " + word).upper().decode())
        if word == b"(":
            if before.lower() in _FUNCTIONS_OF_THE_HOST:
                raise _denied(f"{before.decode()}(…)")
            inside_apply = before.upper() == b"APPLY"
        elif (inside_apply or before.upper() == b"APPLY") and word.lower() in _FUNCTIONS_OF_THE_HOST:
            raise _denied(f"APPLY {word.decode()}")
        else:
            inside_apply = False
        before = word if token.lastgroup in ("word", "name") else b""


def _denied(what: str) -> ClickHouseError:
    return ClickHouseError(
        f"{what} is switched off: the embedded engine reaches no files and programs of this host. (ACCESS_DENIED)",
        code=497,
    )


def output_format(statement: str, default: str) -> tuple[str, str]:
    """The format of a result and the statement without its trailing FORMAT clause."""
    found = re.search(r"\bFORMAT\s+([A-Za-z0-9_]+)\s*;?\s*$", statement, re.IGNORECASE)
    if found:
        return found.group(1), statement[: found.start()]
    return default, statement.rstrip().rstrip(";")


def quote(value: str) -> str:
    """A string literal of ClickHouse."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def mid_stream_error(error: ClickHouseError, tag: str) -> bytes:
    """What ClickHouse appends to a body whose status line is already sent (the tag is in a header)."""
    message = error.text.encode()
    return b"__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (
        tag.encode(),
        message,
        len(message) + 1,
        tag.encode(),
    )


def name_zones(first: bytes, columns: list[tuple[str, str]]) -> bytes:
    """Put the zones of DateTime columns back into the header of the first Native block.

    Without a protocol version the engine writes the type ``DateTime`` where the column is ``DateTime('Asia/Shanghai')``
    and readers would guess the zone. *columns* are (name, type) of the result in order.
    """
    position = 0
    out: list[bytes] = []
    for name, kind in columns:
        if not kind.startswith("DateTime("):
            continue
        header = _text(name) + b"\x08DateTime"
        at = first.find(header, position)
        if at < 0:
            continue
        out += [first[position:at], _text(name), _text(kind)]
        position = at + len(header)
    return b"".join([*out, first[position:]])


def _text(value: str) -> bytes:
    """A string of the Native format: its length as LEB128, then UTF-8."""
    raw = value.encode()
    size = len(raw)
    length = bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + raw
