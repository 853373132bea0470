"""Families of clients: what they say they are, as logs have it, and what they ask for."""

import pytest

from automx.families import family_of
from tests.agents import AGENTS


@pytest.mark.parametrize(
    ("family", "agent", "protocol", "method", "query"),
    [
        ("thunderbird", "Mozilla/5.0 (X11; rv:140.0) Thunderbird/140.0", "autoconfig", "GET", ""),
        ("android", "okhttp/4.12.0", "autoconfig", "GET", ""),
        ("android", "FairEmail", "autoconfig", "GET", ""),
        ("outlook", "Microsoft Office/16.0 (Microsoft Outlook 16.0)", "autodiscover", "POST", ""),
        ("outlook", "", "autodiscover", "POST", ""),
        ("delta_chat", "", "autodiscover", "GET", ""),
        ("delta_chat", "", "autoconfig", "GET", "emailaddress=alice@example.com"),
        ("delta_chat", "", "account", "POST", "t=x"),
        ("other", "", "page", "GET", ""),
        ("monitoring", "", "health", "GET", ""),
        ("scanner", "python-requests/2.32", "health", "GET", ""),
        ("evolution", "", "autoconfig", "GET", "emailaddress=EVOLUTIONUSER@example.com"),
        ("evolution", "Evolution/3.56.0", "autoconfig", "GET", ""),
        ("kmail", "KIO/6.0", "autoconfig", "GET", ""),
        ("apple", AGENTS["iPhone"][0], "mobileconfig", "GET", ""),
        ("apple", AGENTS["Mac"][0], "page", "GET", ""),
        ("browser", AGENTS["Windows"][0], "page", "GET", ""),
        ("browser", AGENTS["Android"][0], "page", "GET", ""),
        ("scanner", "Mozilla/5.0 zgrab/0.x", "autoconfig", "GET", ""),
        ("scanner", "python-requests/2.32", "other", "GET", ""),
        ("monitoring", "automx-check/1.0.0", "health", "GET", ""),
        ("other", "curl/8.14.1", "autoconfig", "GET", ""),
        ("other", "x" * 100_000 + "thunderbird", "autoconfig", "GET", ""),
    ],
)  # fmt: skip
def test_a_client_is_known_by_its_agent_or_by_what_it_asks(
    family: str, agent: str, protocol: str, method: str, query: str
) -> None:
    assert family_of(agent, protocol, method, query) == family


# The family, and the User-Agent of a client that asks for Autoconfig by GET.
REAL = """\
thunderbird  Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Thunderbird/128.5.0
thunderbird  Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Thunderbird/140.5.0
android      okhttp/5.1.0
android      Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UD1A.231105.004)
outlook      Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17328; Pro)
outlook      MacOutlook/16.89.24091630 (Intelx64 Mac OS X Version 14.6 (Build 23G80))
outlook      ExchangeServicesClient/15.00.0913.015
apple        iOS/18.0 (22A3354) dataaccessd/1.0
apple        macOS/13.4 (22F66) dataaccessd/1.0
apple        Mac OS X/10.6.8 (10K549); ExchangeWebServices/1.3 (61); Mail/4.6 (1085)
apple        Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148
kmail        Mozilla/5.0 (X11; Linux x86_64) KHTML/5.103.0 (like Gecko) Konqueror/5.0 KIO/5.103
evolution    Evolution/3.56.1
browser      Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36
browser      Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0
browser      Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36
monitoring   Blackbox Exporter/0.25.0
monitoring   Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)
monitoring   ELB-HealthChecker/2.0
scanner      Mozilla/5.0 (compatible; CensysInspect/1.1; +https://about.censys.io/)
scanner      Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)
scanner      Python/3.12 aiohttp/3.10.5
scanner      Go-http-client/1.1
other        Nextcloud Server Crawler
other        Nextcloud-Server-Crawler/32.0.2
"""  # noqa: E501 - as logs have them


@pytest.mark.parametrize("line", REAL.splitlines())
def test_a_real_client_is_known_by_its_agent(line: str) -> None:
    family, agent = line.split(maxsplit=1)
    assert family_of(agent, "autoconfig", "GET", "") == family
