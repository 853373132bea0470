"""What browsers of devices say they are (User-Agent), and the way that the page opens first."""

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"
)
AGENTS = {
    "iPhone": (IPHONE, "ios"),
    "iPad": (IPHONE.replace("iPhone;", "iPad;"), "ios"),
    "Mac": ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15", "mac"),
    "Windows": ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:150.0) Firefox/150.0", "outlook-new"),
    "Android": (
        "Mozilla/5.0 (Linux; Android 16; Pixel 9) Chrome/156.0 Mobile",
        "thunderbird-android",
    ),
    "Chromebook": ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/156.0", "thunderbird-android"),
    "Linux": ("Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Firefox/150.0", "thunderbird"),
}
