"""Does anything grow in long training? Train many batches with each mixer, and count what is alive on the way

python benchmarks/soak.py --batches 20000 # some minutes on one core"""
import argparse, gc, os, resource, sys, torch
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'tests'))
from fastai.basics import Callback, Recorder
from helpers import DATA, MIXERS, Y, get_dls, get_learn, hooks, kind_of, mixer, quiet

def resident():
    "Memory of this process in MB"
    statm = Path('/proc/self/statm')
    if statm.exists(): return int(statm.read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**10

class Census(Callback):
    "Count what is alive after every `every` batches: objects, tensors, their bytes, hooks, memory of the process"
    order,run_valid = 1000,False
    def __init__(self, every): self.every,self.n,self.rows = every,0,[]
    def after_batch(self):
        self.n += 1
        if self.n%self.every: return
        gc.collect()
        objs = gc.get_objects()
        ts = [o for o in objs if issubclass(type(o), torch.Tensor)]
        self.rows.append((len(objs), len(ts), sum(o.untyped_storage().nbytes() for o in ts), len(hooks(self.model)), resident()))

per_epoch = 50 # batches
def soak(name, epochs, kind=None, times=5):
    "Rows of a `Census` of training with the mixer `name`, or none"
    kind = kind or kind_of(name)
    i = torch.arange(4*per_epoch+4)%len(Y)
    census = Census(epochs//times*per_epoch)
    dls = get_dls(DATA[kind][i], Y[i], n=4*per_epoch)
    learn = get_learn([mixer(name)] if name else [], kind, dls=dls, lr=1e-3)
    learn.remove_cb(Recorder) # it keeps a tensor of each batch
    gc.collect()
    gc.freeze() # do not count what exists already
    with quiet(learn): learn.fit(epochs, cbs=census)
    gc.unfreeze()
    return census.rows

def growth(rows):
    "Growth from the first count, when everything is warm, to the last"
    return [b-a for a,b in zip(rows[0],rows[-1])]

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batches', type=int, default=20_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{args.batches:,} batches each; counted alive at the end, and (+) by how much more than after a fifth of the way")
    print(f"{'':<24}{'tensors':>16}{'kB in them':>18}{'objects':>20}{'hooks':>8}{'MB resident':>20}")
    for name,kind in [('no mixer, images','image'),('no mixer, tokens','tokens'),*[(k,None) for k in MIXERS]]:
        rows = soak(None if kind else name, args.batches//per_epoch, kind)
        (objs,ts,size,hks,mb),(d_objs,d_ts,d_size,_,d_mb) = rows[-1],growth(rows)
        counts = f"{ts:>10} {d_ts:>+5}{size/1024:>10.1f} {d_size/1024:>+7.1f}{objs:>13} {d_objs:>+6}{hks:>8}"
        print(f"{name:<24}{counts}{mb:>12.1f} {d_mb:>+7.2f}", flush=True)
