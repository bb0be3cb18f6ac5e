"""`python -m esc_ensemble.infer`: the same as `esc-ens infer`."""

import sys

from esc_ensemble.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
