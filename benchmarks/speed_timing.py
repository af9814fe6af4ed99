"Time functions in turn, and note what was measured as rows of a table"
import gc, random, statistics, time, torch

def race(
    fs, # Names to functions, or to pairs `(ready, f)`: the time of `ready` is not counted
    seconds=10., # For how long
    least=7, # Rounds at least
    clock=None # By default that of the processor with one thread, which other programs don't disturb, else that on the wall
): # Names to lists of seconds, an entry a round
    "Call all of `fs` in turn, in an order drawn anew for each round"
    clock = clock or (time.process_time if torch.get_num_threads()==1 else time.perf_counter)
    pairs = {k: v if isinstance(v, tuple) else (None,v) for k,v in fs.items()}
    times,order,start,n = {k:[] for k in fs},random.Random(0),time.perf_counter(),-2
    gc.collect()
    while n<least or time.perf_counter()-start<seconds:
        for k in order.sample(list(pairs), len(pairs)):
            ready,f = pairs[k]
            if ready: ready()
            begin = clock()
            f()
            if n>=0: times[k].append(clock()-begin) # two rounds to get warm
        n += 1
    return times

def row(section, what, case, name, value, unit, **kw): return dict(section=section, what=what, case=case, name=name, value=value, unit=unit) | kw

def rows(
    section, what, case, # What was measured
    times, # From `race`
    ref=None # Name of what all are compared to; by default the first
): # List of dicts
    "Median seconds; and median and quartiles of the ratio to `ref` in the same round"
    ref,res = ref or next(iter(times)),[]
    for k,v in times.items():
        low,ratio,high = statistics.quantiles([a/b for a,b in zip(v,times[ref])], n=4)
        res.append(row(section, what, case, k, statistics.median(v), 'seconds', rounds=len(v), reference=ref, ratio=ratio, low=low, high=high))
    return res

def name_of(shape): return 'x'.join(map(str, shape))
