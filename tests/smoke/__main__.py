"""Both layouts, run for real and hurt: python -m tests.smoke [--image NAME] [single] [many].

Where no container engine is at hand, it says so and ends well.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.smoke import many, single
from tests.smoke.engine import has_image, missing

LAYOUTS = {"single": single.check, "many": many.check}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.smoke")
    parser.add_argument("layouts", nargs="*", choices=[[], *LAYOUTS], default=[])
    parser.add_argument("--image", default="millrace:dev")
    options = parser.parse_args()
    reason = missing()
    if reason:
        print(f"smoke: skipped, {reason}")
        return
    if not has_image(options.image):
        sys.exit(f"smoke: there is no image {options.image}; make image builds it")
    for name in options.layouts or LAYOUTS:
        began = time.monotonic()

        def say(text: str, layout: str = name, since: float = began) -> None:
            print(f"{layout:<8}{time.monotonic() - since:6.1f} s  {text}", flush=True)

        LAYOUTS[name](options.image, say)
    print("smoke: all well")


if __name__ == "__main__":
    main()
