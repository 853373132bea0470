"""The mail programs that the page explains, and what people do in each, step by step.

The comments name the version that the words are from, and the source. Translators use the words
that the program shows in their language.
"""

from dataclasses import dataclass

from automx.clientconfig import ClientConfig
from automx.config.page import APPS as NAMES
from automx.formats import mobileconfig
from automx.texts import N_

# Texts of several programs.
_ALL_AT_ONCE = N_("A profile sets up everything at once. You only type your password.")
# Translators: Thunderbird for Android 8 and later,
# https://github.com/thunderbird/thunderbird-android, feature/account/setup.
_ADDRESS = N_("Type your mail address.")
# Translators: macOS 13 and later; it was not compared with a text of Apple.
_INSTALL_PROFILE = N_("Click Install. Type the password of your mailbox.")


@dataclass(frozen=True, slots=True)
class App:
    """A mail program: its title, the name of its icon, a remark, and the steps, all in English.

    ``stores`` are the places where it is had, each a name and a URL. ``has_profile``: a profile
    sets it up. ``has_code``: the QR code of the profile is for it. ``needs_servers``: people have
    to type the servers, or may have to.
    """

    title: str
    icon: str
    remark: str
    steps: tuple[str, ...]
    stores: tuple[tuple[str, str], ...] = ()
    has_profile: bool = False
    has_code: bool = False
    needs_servers: bool = False


_APPS = {
    "ios": App(
        N_("iPhone and iPad"),
        "phone",
        _ALL_AT_ONCE,
        (
            # Translators: iOS and iPadOS 12.2 and later. Other browsers do not hand a profile over
            # to the settings, https://github.com/aniksarakash/encrypted-dns
            N_("Open this page in Safari, tap “Get the profile”, and allow the download."),
            # Translators: iOS and iPadOS 12.2 and later; after 8 minutes the profile is deleted.
            # Apple's text, https://simetry.freshdesk.com/support/solutions/articles/154000182325
            N_(
                "Within eight minutes, open the Settings and tap “Profile Downloaded”, near the"
                " top."
            ),
            # Translators: iOS and iPadOS 12.2 and later, Apple's text,
            # https://simetry.freshdesk.com/support/solutions/articles/154000182325
            N_("Tap Install. Type the passcode of the device, then the password of your mailbox."),
        ),
        has_profile=True,
        has_code=True,
    ),
    "mac": App(
        N_("Mac"),
        "laptop",
        _ALL_AT_ONCE,
        (
            # Translators: macOS 13 and later; it was not compared with a text of Apple.
            N_("Get the profile, and open it in the downloads."),
            # Translators: macOS 15 and later, and macOS 13 and 14; it was not compared with a text
            # of Apple.
            N_(
                "Open System Settings, General, Device Management, and double-click the profile."
                " Before macOS 15 it is in Privacy & Security, Profiles."
            ),
            _INSTALL_PROFILE,
        ),
        has_profile=True,
    ),
    "thunderbird": App(
        "Thunderbird",
        "bolt",
        N_("Thunderbird for Windows, macOS and Linux finds all settings by itself."),
        (
            # Translators: Thunderbird 153.8.0esr, its file messenger/appmenu.ftl:
            # appmenu-add-account-panel and appmenu-new-email-account. The words of your language
            # are in the language pack of the same version.
            N_(
                "Start Thunderbird. If it does not ask for your address by itself, open its menu ☰"
                " and choose “Add Account”, “Email”."
            ),
            # Translators: Thunderbird 153.8.0esr, its file accountHub.ftl:
            # account-hub-email-continue-button.
            N_(
                "Type your name and your mail address, and choose “Continue”. Choose it again when"
                " Thunderbird shows what it has found."
            ),
            # Translators: Thunderbird 153.8.0esr, its file accountHub.ftl:
            # account-hub-email-continue-button, account-hub-email-finish-button.
            N_("Type the password of your mailbox, and choose “Continue”, then “Finish”."),
        ),
    ),
    "outlook-new": App(
        # Translators: what the start menu of Windows 11 calls it, beside "Outlook (classic)".
        N_("Outlook (new)"),
        "calendar",
        # Translators: new Outlook for Windows, as observed by the servers of Mailu in 2025:
        # https://github.com/Mailu/Mailu/issues/3961
        N_("The Outlook of Windows 11. A service of Microsoft looks for the settings."),
        (
            # Translators: new Outlook for Windows, 2025,
            # https://wisechecker.com/how-to-set-up-multiple-email-accounts-in-new-outlook/
            N_("Open the settings with the cog at the top, and choose “Accounts”, “Add account”."),
            # Translators: new Outlook for Windows, 2025,
            # https://wisechecker.com/how-to-set-up-multiple-email-accounts-in-new-outlook/
            N_(
                "Type your mail address, and choose “Continue”. If Outlook asks for the provider,"
                " choose IMAP."
            ),
            # Translators: new Outlook for Windows, 2025,
            # https://wisechecker.com/how-to-set-up-multiple-email-accounts-in-new-outlook/
            N_(
                "Type the password of your mailbox. If Outlook asks for servers, copy the settings"
                " from this page."
            ),
        ),
        needs_servers=True,
    ),
    "outlook": App(
        # Translators: what the start menu of Windows 11 calls it, beside "Outlook (new)".
        N_("Outlook (classic)"),
        "window",
        # Translators: Outlook 2016 to 2024 and Microsoft 365 ask by Autodiscover, [MS-OXDSCLI].
        N_("The Outlook of Microsoft Office. It asks for the settings of your address by itself."),
        (
            # Translators: classic Outlook for Windows, 2019 to 2026, the guide of OVHcloud
            # "Setting up your e-mail address on Classic Outlook for Windows",
            # https://github.com/ovh/docs
            N_("Choose “File”, “Add Account”."),
            # Translators: classic Outlook for Windows, 2019 to 2026, the guide of OVHcloud
            # "Setting up your e-mail address on Classic Outlook for Windows",
            # https://github.com/ovh/docs
            N_("Type your mail address, and choose “Connect”."),
            # Translators: classic Outlook for Windows, 2019 to 2026, the guide of OVHcloud
            # "Setting up your e-mail address on Classic Outlook for Windows",
            # https://github.com/ovh/docs
            N_(
                "Type the password of your mailbox. If Outlook asks for more, choose IMAP, and copy"
                " the settings from this page."
            ),
        ),
    ),
    "outlook-mac": App(
        N_("Outlook for Mac"),
        "laptop-lines",
        N_("Outlook for Mac asks for servers: copy them from this page."),
        (
            # Translators: Outlook for Mac, October 2024, the guide of OVHcloud "Configuring your
            # email address in Outlook for macOS", https://github.com/ovh/docs
            N_("Choose “Tools”, “Accounts” in the menu bar, then “+”, “New Account”."),
            # Translators: Outlook for Mac, October 2024, the guide of OVHcloud "Configuring your
            # email address in Outlook for macOS", https://github.com/ovh/docs
            N_("Type your mail address, choose “Continue”, and then “IMAP/POP”."),
            # Translators: Outlook for Mac, October 2024, the guide of OVHcloud "Configuring your
            # email address in Outlook for macOS", https://github.com/ovh/docs
            N_("Type the password of your mailbox, and copy the servers from this page."),
        ),
        needs_servers=True,
    ),
    "thunderbird-android": App(
        N_("Thunderbird for Android"),
        "phone-bolt",
        N_("Thunderbird for Android finds all settings by itself."),
        (
            # Translators: Thunderbird for Android 8 and later,
            # https://github.com/thunderbird/thunderbird-android, feature/account/setup.
            N_("Install Thunderbird from your app store, and start it."),
            _ADDRESS,
            # Translators: Thunderbird for Android 8 and later,
            # https://github.com/thunderbird/thunderbird-android, feature/account/setup.
            N_("Type the password of your mailbox, and finish."),
        ),
        stores=(
            (
                "Google Play",
                "https://play.google.com/store/apps/details?id=net.thunderbird.android",
            ),
            ("F-Droid", "https://f-droid.org/packages/net.thunderbird.android/"),
        ),
    ),
    "fairemail": App(
        "FairEmail",
        "shield",
        N_("FairEmail finds all settings by itself."),
        (
            # Translators: FairEmail 1.1900 and later, https://github.com/M66B/FairEmail: FAQ.md.
            N_("Install FairEmail from your app store, start it, and open its quick setup."),
            # Translators: FairEmail 1.1900 and later, https://github.com/M66B/FairEmail:
            # FragmentSetup.java, title_setup_other.
            N_("Choose “Other provider”."),
            # Translators: FairEmail 1.1900 and later, https://github.com/M66B/FairEmail:
            # FragmentQuickSetup.java and fragment_quick_setup.xml, title_check.
            N_(
                "Type your name, your mail address and the password of your mailbox, tap “Check”,"
                " and save what it has found."
            ),
        ),
        stores=(
            ("Google Play", "https://play.google.com/store/apps/details?id=eu.faircode.email"),
            ("F-Droid", "https://f-droid.org/packages/eu.faircode.email/"),
        ),
    ),
    "gmail": App(
        # Translators: the app Gmail, with a mailbox of another provider.
        "Gmail",
        "at",
        N_("The app Gmail asks for servers: copy them from this page."),
        (
            # Translators: Gmail for Android, November 2025,
            # https://blogs-on-gmail.blogspot.com/2025/11/adding-non-gmail-addresses-to-gmail.html
            N_("Tap your picture at the top right, then “Add another account”, “Other”."),
            # Translators: Gmail for Android 13, December 2023, the guide of OVHcloud "Configuring
            # an email address in Gmail for Android", https://github.com/ovh/docs
            N_("Type your mail address, and choose “Personal (IMAP)”."),
            # Translators: Gmail for Android 13, December 2023, the guide of OVHcloud "Configuring
            # an email address in Gmail for Android", https://github.com/ovh/docs
            N_("Type the password of your mailbox, and copy the servers from this page."),
        ),
        needs_servers=True,
    ),
    "samsung": App(
        "Samsung Email",
        "phone-mail",
        N_("The app Email of Samsung phones asks for servers: copy them from this page."),
        (
            # Translators: Samsung Email; no source with a version was found, so that no menu of it
            # is named but that of the next step.
            N_("Open the app Email, and add an account."),
            # Translators: mail apps of Android phones, "Manual setup":
            # https://github.com/frugan-dev/docs.frugan.it, docs of e-mail for Android.
            N_("Type your mail address and your password, and choose “Manual setup”, IMAP."),
            # Translators: Samsung Email; see the step "Open the app Email, and add an account."
            N_("Copy the servers from this page."),
        ),
        needs_servers=True,
    ),
    "deltachat": App(
        "Delta Chat",
        "chat",
        # Translators: Delta Chat 2.
        N_("Chat with everyone who has a mail address."),
        (
            # Translators: Delta Chat 2.65, its welcome screen.
            N_("Install Delta Chat, and create a profile."),
            # Translators: Delta Chat 2.65, its welcome screen.
            N_("Choose to use another server, with a mail address that you have already."),
            # Translators: Delta Chat 2.65, its form for a mail address that exists.
            N_("Type your mail address and the password of your mailbox."),
        ),
        stores=(("get.delta.chat", "https://get.delta.chat/"),),
    ),
}

# Mail programs of a platform, by a word in its User-Agent; the first word that is found counts. An
# iPad calls itself a Mac, unless mobile pages are asked for.
_ANDROID = ("thunderbird-android", "fairemail", "gmail", "samsung", "deltachat")
_PLATFORMS = {
    "iPhone": ("ios", "deltachat"),
    "iPad": ("ios", "deltachat"),
    "Android": _ANDROID,
    "CrOS": _ANDROID,
    "Macintosh": ("mac", "thunderbird", "outlook-mac", "deltachat"),
    "Windows": ("outlook-new", "outlook", "thunderbird", "deltachat"),
    "Linux": ("thunderbird", "deltachat"),
}


def groups(
    wanted: tuple[str, ...], config: ClientConfig, agent: str, *, has_accounts: bool
) -> list[tuple[str, list[App]]]:
    """Return the mail programs for the visitor's device and for others, each with a group's name.

    ``wanted`` are the words of the setting page_apps; without them, Delta Chat is among them only
    if ``has_accounts``: the service makes accounts for it. ``agent`` is the User-Agent. The groups
    are ``here`` and ``elsewhere``, or ``anywhere`` if nothing is known for the device.
    """
    names = wanted or tuple(name for name in NAMES if has_accounts or name != "deltachat")
    if not mobileconfig.is_possible(config):
        names = tuple(name for name in names if not _APPS[name].has_profile)
    platform = next((apps for word, apps in _PLATFORMS.items() if word in agent), ())
    # The order of the administrator counts; without one, that of the platform.
    here = [name for name in (names if wanted else platform) if name in platform and name in names]
    found = {
        "here": here,
        "elsewhere": [name for name in names if name not in here],
    }
    if not here:
        found = {"anywhere": list(names)}
    return [(group, [_APPS[name] for name in apps]) for group, apps in found.items() if apps]
