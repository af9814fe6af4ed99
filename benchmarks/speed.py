"""Time and memory of fastmix against other libraries and against what no library can beat, as ratios

python benchmarks/speed.py # about 10 minutes; results go to benchmarks/results"""
import csv, importlib.metadata, os, platform, subprocess, sys, time, torch, warnings
from fastcore.script import call_parse
from pathlib import Path

warnings.filterwarnings('ignore')
sections = dict(batch='speed_batch', memory='speed_batch', tried='speed_batch', parts='speed_batch', pages='speed_batch',
    steps='speed_step', proof='speed_step', masks='speed_step',
    imports='speed_growth', growth='speed_growth')
res_dir = Path(__file__).resolve().parent/'results'
columns = 'section what case name threads value unit rounds reference ratio low high'.split()
packages = 'torch fastai timm torchvision kornia numpy fastmix'.split()

def processor():
    info = Path('/proc/cpuinfo')
    names = [o.split(':')[1].strip() for o in info.read_text().splitlines() if o.startswith('model name')] if info.exists() else []
    return names[0] if names else platform.processor()

def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return 'none'

def versions(run, threads):
    res = dict(run=run, threads=threads, python=platform.python_version()) | {o: version(o) for o in packages}
    return res | dict(processor=processor(), cores=os.cpu_count(), system=platform.system())

def update(path, names, new):
    "Put rows `new` in the place of those in the table at `path` with the same first column and number of threads"
    keys = {(o[names[0]],str(o['threads'])) for o in new}
    old = list(csv.DictReader(path.open())) if path.exists() else []
    with path.open('w', newline='') as f:
        w = csv.DictWriter(f, names, lineterminator='\n')
        w.writeheader()
        w.writerows([o for o in old if (o[names[0]],o['threads']) not in keys] + new)

def rounded(o): return {k: f"{v:.4g}" if isinstance(v, float) else v for k,v in o.items()}

@call_parse
def main(
    only:str=','.join(sections), # Sections to run, separated by commas
    threads:int=1, # Threads of PyTorch
    seconds:float=6, # For how long each comparison runs, about
    out:Path=res_dir # Folder for the tables
):
    "Measure, and write speed.csv and speed_versions.csv"
    names = only.split(',')
    if len(names)>1: # each in a process of its own, since how fast memory is to be had depends on what ran before
        for name in names:
            args = '--only',name,'--threads',str(threads),'--seconds',str(seconds),'--out',str(out)
            subprocess.run([sys.executable, __file__, *args], check=True)
        return
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    start,name = time.perf_counter(),names[0]
    new = [rounded(o|dict(threads=threads, section=name)) for o in getattr(importlib.import_module(sections[name]), name)(seconds)]
    update(Path(out)/'speed.csv', columns, new)
    info = versions(name, threads)
    update(Path(out)/'speed_versions.csv', list(info), [info])
    print(f"{name}: {time.perf_counter()-start:.0f} s", flush=True)
    for o in new: print(f"  {o['what']} {o['case']} {o['name']}: {o['value']} {o['unit']}, {o.get('ratio', '')} of {o.get('reference', '')}", flush=True)
