"""DNS messages: what a question asks, and the answer to it (RFC 1035)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from lamina.resolver.messages import Sandbox
from lamina.resolver.zone import Zone

_TTL_S = 60
"""Short, as a container's address may be another's after it has gone."""
_FAMILY = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}


@dataclass(frozen=True)
class Question:
    """A question that came in: the parsed message, and the name without the dot at its end."""

    message: dns.message.Message
    name: str
    kind: dns.rdatatype.RdataType

    @property
    def has_dots(self) -> bool:
        """Whether the name has a domain, and is worth asking the world for."""
        return "." in self.name


def read(data: bytes) -> Question | None:
    """A question, None if it is none that can be answered."""
    try:
        message = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError):
        return None
    if message.flags & dns.flags.QR or len(message.question) != 1:
        return None
    asked = message.question[0]
    return Question(message, asked.name.to_text(omit_final_dot=True), asked.rdtype)


def from_zone(question: Question, asker: Sandbox, zone: Zone) -> dns.message.Message | None:
    """The answer if a container has the name, or the address; None if somebody else is to be asked."""
    if question.kind == dns.rdatatype.PTR:
        return _pointer(question, asker, zone)
    found = zone.addresses(asker, question.name)
    if found is None:
        return None
    response = _response(question)
    version = _FAMILY.get(question.kind)
    texts = [text for text in found if ip_address(text).version == version]
    random.shuffle(texts)
    if texts:
        name = question.message.question[0].name
        response.answer.append(dns.rrset.from_text_list(name, _TTL_S, dns.rdataclass.IN, question.kind, texts))
    return response


def failure(question: Question, *, exists: bool) -> bytes:
    """What is said when nobody knows: that the name is not there, or that it could not be found out whether it *exists*."""
    response = _response(question)
    response.set_rcode(dns.rcode.SERVFAIL if exists else dns.rcode.NXDOMAIN)
    return response.to_wire()


def to_wire(response: dns.message.Message, *, most: int) -> bytes:
    """The bytes; those of an answer that is longer than *most* tell that it is to be asked for by TCP."""
    try:
        return response.to_wire(max_size=most)
    except dns.exception.TooBig:
        short = dns.message.make_response(_as_question(response))
        short.flags |= dns.flags.TC | dns.flags.RA
        return short.to_wire()


def room(question: Question) -> int:
    """How many bytes the asker takes by UDP (RFC 6891, 6.2.3)."""
    return max(512, question.message.payload) if question.message.edns >= 0 else 512


def _pointer(question: Question, asker: Sandbox, zone: Zone) -> dns.message.Message | None:
    try:
        address = dns.reversename.to_address(question.message.question[0].name)
    except dns.exception.DNSException:
        return None
    name = zone.name_of(asker, address)
    if name is None:
        return None
    response = _response(question)
    owner = question.message.question[0].name
    try:
        target = dns.name.from_text(f"{name}.")
        found = dns.rrset.from_text(owner, _TTL_S, dns.rdataclass.IN, dns.rdatatype.PTR, f"{name}.")
        if not target.is_absolute():
            return None
    except (dns.exception.DNSException, UnicodeError):  # a container's name may be none that DNS has
        return None
    response.answer.append(found)
    return response


def _response(question: Question) -> dns.message.Message:
    response = dns.message.make_response(question.message, recursion_available=True)
    response.flags |= dns.flags.RA
    return response


def _as_question(response: dns.message.Message) -> dns.message.Message:
    """The question that a response answers."""
    asked = dns.message.Message(id=response.id)
    asked.flags = response.flags & ~dns.flags.QR
    asked.question = response.question
    return asked
