"""The page: one file put together from `templates/`, which asks for nothing but predictions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

TEMPLATES = files("esc_ensemble.serve") / "templates"


@dataclass(frozen=True)
class Page:
    """A page and the policy that browsers hold it to."""

    html: str
    headers: dict[str, str]


def make_page(about: dict[str, Any]) -> Page:
    """Puts the page together.

    Args:
        about: of `Service.about`; names in it are data and never markup.
    """
    style = _read("page.css")
    script = "\n".join(_read(name) for name in ("sound.js", "player.js", "page.js"))
    # Inside a script element nothing but `</script` and `<!--` means something to HTML; neither is left.
    data = json.dumps(about).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    parts = {"NAME": escape(about["model"]), "STYLE": style, "DATA": data, "SCRIPT": script}
    # In one pass: what is put in is not searched.
    html = re.sub("@(NAME|STYLE|DATA|SCRIPT)@", lambda found: parts[found[1]], _read("page.html"))
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "connect-src": "'self'",
        "media-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    }
    return Page(html, headers)


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Allows one inline script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
