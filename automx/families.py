"""Families of clients, by User-Agent and by the form of a request. Anybody can claim any of them.

Delta Chat (2.65) sends no User-Agent, K-9 sends that of its HTTP library, and Evolution asks with a
local part that is made up. Nextcloud Mail says that it is a crawler, and all browsers that they are
Mozilla, most that they have Apple's WebKit.
"""

import re
from functools import lru_cache

THUNDERBIRD, OUTLOOK, APPLE, DELTA_CHAT = "thunderbird", "outlook", "apple", "delta_chat"
ANDROID, KMAIL, EVOLUTION, BROWSER = "android", "kmail", "evolution", "browser"
MONITORING, SCANNER, OTHER = "monitoring", "scanner", "other"

# The first that is found in a User-Agent in lower case counts.
_AGENTS = [
    (family, re.compile(pattern))
    for family, pattern in {
        ANDROID: "okhttp|k-9|thunderbird for android|fairemail|dalvik",
        THUNDERBIRD: "thunderbird|betterbird",
        OUTLOOK: "outlook|microsoft office|ms-?office|autodiscover ?client|em client"
        "|exchange(?!webservices)",  # which Apple Mail says
        MONITORING: "automx-check|prometheus|blackbox|kube-probe|uptime|nagios|check_http|haproxy"
        "|zabbix|icinga|pingdom|health ?check",
        SCANNER: "zgrab|masscan|nmap|nuclei|nikto|sqlmap|censys|shodan|expanse|internetmeasurement"
        r"|python[-/]|go-http|libwww|scan|(?<!server[ -])crawl|spider|bot\b|headless|gobuster|ffuf"
        "|dirbuster|httpx|leakix|l9explore",
        EVOLUTION: "evolution",
        KMAIL: r"kio/|kmail|kontact|akonadi",
        DELTA_CHAT: "delta ?chat",
        APPLE: "iphone|ipad|ios/|macintosh|mac os x|macos|darwin|accountsd|dataaccessd"
        "|apple(?!webkit)",
        BROWSER: "mozilla/|opera",
    }.items()
]
FAMILIES = (*(family for family, _ in _AGENTS), OTHER)

LONGEST = 300  # characters of a User-Agent that are read
MADE_UP = "emailaddress=EVOLUTIONUSER"  # the query of Evolution
_BY_GET = {"autoconfig", "autodiscover"}  # what Delta Chat asks for


def family_of(agent: str, protocol: str, method: str, query: str) -> str:
    """Return the family of the client that has sent a request."""
    found = _of_agent(agent[:LONGEST])  # before it is remembered
    if found != OTHER:
        return found
    if query.startswith(MADE_UP):
        return EVOLUTION
    if protocol == "autodiscover" and method == "POST":
        return OUTLOOK
    if protocol == "health":  # load balancers say little of themselves
        return MONITORING
    if not agent and (protocol in _BY_GET or (protocol == "account" and method == "POST")):
        return DELTA_CHAT
    return OTHER


@lru_cache(1000)
def _of_agent(agent: str) -> str:
    agent = agent.lower()
    return next((family for family, pattern in _AGENTS if pattern.search(agent)), OTHER)
