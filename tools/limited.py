"nbdev's processing of a notebook for the site, with a limit: in a module of its own, for processes that do not know `docs.py`"
import os, signal, sys
from nbdev.serve_drv import main

limit = 180 # seconds; notebooks are not run, only read, and what they document is looked up

def process(o):
    "Process one file; say which it is if it takes too long, and end the process"
    def _late(*_):
        print(f"{o[0]} takes more than {limit} s: where a class has @delegates(), give it an __init__ of its own", file=sys.stderr, flush=True)
        os._exit(1)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(limit)
    try: main(o)
    finally: signal.alarm(0)
