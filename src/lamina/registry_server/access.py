"""Who is asking, and whether that one may do what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.registry_server.errors import RegistryError, denied, unauthorized
from lamina.registry_server.passwords import Passwords
from lamina.registry_server.rules import ACTIONS, Action, Rules
from lamina.registry_server.tokens import LIFE_S, SERVICE, Grant, Tokens, wanted_of

_CATALOG = "registry:catalog"


@dataclass(frozen=True)
class Visitor:
    """Who is asking: a name, or an empty text for nobody; with a token also what that allows."""

    user: str = ""
    grant: Grant | None = None


@dataclass(frozen=True)
class Access:
    """Decides by rules. Without *passwords* there are no names; with *tokens* clients are sent for one."""

    rules: Rules
    passwords: Passwords | None = None
    tokens: Tokens | None = None

    async def visitor(self, authorization: str) -> Visitor:
        """Who is asking. Raises RegistryError for a wrong password or token."""
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() == "basic" and self.passwords is not None:
            return Visitor(await self.passwords.user(text))
        if scheme.lower() == "bearer" and self.tokens is not None:
            grant = self.tokens.read(text)
            return Visitor(grant.user, grant)
        return Visitor()

    def allows(self, visitor: Visitor, action: Action, repository: str) -> bool:
        """Whether a visitor may do something: by the rules, and within what a token was asked for."""
        if visitor.grant is not None and not visitor.grant.allows(action, repository):
            return False
        return self.rules.allow(visitor.user, action, repository)

    def check(self, visitor: Visitor, action: Action, repository: str) -> None:
        """Raises RegistryError if a visitor may not: 401 where a name, or another token, could help."""
        if self.allows(visitor, action, repository):
            return
        if self.passwords is not None and (not visitor.user or visitor.grant is not None):
            raise unauthorized()
        raise denied(f"{action} of {repository}")

    def check_named(self, visitor: Visitor) -> None:
        """Raises RegistryError for who shows nothing, where there are names.

        It is by ``/v2/`` that docker's clients find out how to say who they are; who has no name gets a token all the same.
        """
        if self.passwords is not None and not visitor.user and visitor.grant is None:
            raise unauthorized()

    def check_known(self, visitor: Visitor) -> None:
        """Raises RegistryError for who has no name, where there are names: for what is about the server itself."""
        if self.passwords is not None and not visitor.user:
            raise unauthorized()

    def challenge(self, base: str, scope: str) -> str:
        """The WWW-Authenticate of a 401. *base* is the registry's own URL as the client knows it."""
        if self.tokens is None:
            return 'Basic realm="lamina registry"'
        asked = f',scope="{scope}"' if scope else ""
        return f'Bearer realm="{base}/token",service="{SERVICE}"{asked}'

    async def give_token(self, authorization: str, scopes: Sequence[str], *, lasting: bool) -> dict[str, object]:
        """The answer to ``GET /token``. Raises RegistryError."""
        visitor = await self.visitor(authorization)
        if visitor.grant is not None:
            raise unauthorized("a token is given for a name and password, not for a token")
        return self._given(visitor.user, scopes, lasting=lasting and bool(visitor.user))

    async def give_oauth_token(self, form: dict[str, str]) -> dict[str, object]:
        """The answer to ``POST /token``. Raises RegistryError."""
        if self.tokens is None or self.passwords is None:
            raise unauthorized("there are no names")
        match form.get("grant_type"):
            case "refresh_token":
                user, mark = self.tokens.user_of_refresh(form.get("refresh_token", ""))
                if self.passwords.mark_of(user) != mark:
                    raise unauthorized("the token's user is gone, or has another password")
                given = self._given(user, [form.get("scope", "")], lasting=False)
                return given | {"refresh_token": form["refresh_token"]}
            case "password":
                user = await self.passwords.checked(form.get("username", ""), form.get("password", ""))
                return self._given(user, [form.get("scope", "")], lasting=form.get("access_type") == "offline")
        raise RegistryError(400, "UNSUPPORTED", "grant_type must be refresh_token or password")

    def _given(self, user: str, scopes: Sequence[str], *, lasting: bool) -> dict[str, object]:
        assert self.tokens is not None, "the route is there with tokens alone"
        granted = []
        for kind, name, actions in wanted_of(scopes):
            if kind == "repository":
                allowed: list[str] = [a for a in ACTIONS if a in actions and self.rules.allow(user, a, name)]
            else:
                allowed = actions if user and f"{kind}:{name}" == _CATALOG else []
            granted.append((kind, name, allowed))
        token = self.tokens.issue(user, granted)
        answer: dict[str, object] = {"token": token, "access_token": token, "expires_in": LIFE_S}
        return answer | ({"refresh_token": self.tokens.issue_refresh(user, self._mark_of(user))} if lasting else {})

    def _mark_of(self, user: str) -> str:
        return self.passwords.mark_of(user) if self.passwords is not None else ""
