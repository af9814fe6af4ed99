"""Does mixing help? One network and one budget a row, every mix, several seeds.

    python benchmarks/accuracy.py DATA                    # all rows, in the order of `ROWS`
    python benchmarks/accuracy.py DATA --rows leaf,ecg    # some

DATA is a folder with the data sets (named in `FILES` of `accuracy_rows.py`, where the rows are); rows whose data is not there are left
out, and said. Every finished run is kept: started again, it goes on. Results: `benchmarks/results/accuracy.csv`, one line a run with its
last epoch, and `accuracy_epochs.csv`, one line an epoch.
"""
import fastai, fastmix, fcntl, json, os, pandas as pd, platform, sys, tempfile, time, torch
from argparse import ArgumentParser
from pathlib import Path
from fastmix.compare import compare
from fastmix.store import read_runs
from accuracy_rows import FILES, ROWS

RESULTS = Path(__file__).parent/'results'

def machine():
    v = dict(python=platform.python_version(), torch=torch.__version__, fastai=fastai.__version__, fastmix=fastmix.__version__)
    return v | dict(cores=os.cpu_count(), threads=torch.get_num_threads(), system=f"{platform.system()} {platform.machine()}")

SETTINGS = ['mix','what','seed','weights','n_epoch','lr','fit','metrics','measure']
def load(name):
    return pd.read_csv(RESULTS/name, keep_default_na=False, na_values=['']) if (RESULTS/name).exists() else pd.DataFrame(columns=['row'])

def restore(row, out):
    "Write the runs of `row` that the CSV files hold to `out`, as `compare` has them"
    if out.exists(): return
    ends,epochs = load('accuracy.csv'),load('accuracy_epochs.csv')
    lines = []
    for r in ends[ends.row==row].to_dict('records'):
        by = epochs[(epochs.row==row)&(epochs.mix==r['mix'])&(epochs.seed==r['seed'])]
        by = by.drop(columns=['row','mix','seed','epoch']).dropna(axis=1)
        extra = {k[2:]:v for k,v in r.items() if k.startswith('m_') and v==v}
        lines.append(json.dumps({k:r[k] for k in SETTINGS} | dict(metrics=r['metrics'].split(), names=list(by), values=by.values.tolist(),
            seconds=r['seconds'], measured=extra)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(''.join(o+'\n' for o in lines))

def save(row, out):
    "Put the runs of `row` into the CSV files; those that were there keep their lines"
    ends,epochs,runs = load('accuracy.csv'),load('accuracy_epochs.csv'),read_runs(out)
    old = {(r['row'],r['mix'],r['seed']) for r in ends.to_dict('records')}
    runs = [r for r in runs if (row,r['mix'],r['seed']) not in old]
    new = [dict(row=row) | {k:r[k] for k in SETTINGS} | dict(metrics=' '.join(r['metrics']), seconds=round(r['seconds'], 2)) | machine()
        | dict(zip(r['names'],r['values'][-1])) | {'m_'+k:v for k,v in r['measured'].items()} for r in runs]
    by = [dict(row=row, mix=r['mix'], seed=r['seed'], epoch=i+1) | dict(zip(r['names'],v)) for r in runs for i,v in enumerate(r['values'])]
    RESULTS.mkdir(exist_ok=True)
    for name,df,more in (('accuracy.csv',ends,new),('accuracy_epochs.csv',epochs,by)):
        if not more: continue
        df = pd.concat([df,pd.DataFrame(more)]) if len(df) else pd.DataFrame(more)
        df.to_csv(RESULTS/(name+'.new'), index=False, float_format='%.6g')
        os.replace(RESULTS/(name+'.new'), RESULTS/name)

def main(
    data='', # Folder with the data sets; without it only the digits, which come with scikit-learn
    rows='', # Rows to run, with commas between; by default all
    threads=None, # Of PyTorch
    seeds=None, # At most so many of a row; by default all
    work=Path(tempfile.gettempdir())/'fastmix-accuracy' # Folder for rows that are not finished
):
    "Train what the tables of the docs show"
    if threads: torch.set_num_threads(threads)
    names = rows.split(',') if rows else list(ROWS)
    if unknown := [o for o in names if o not in ROWS]: sys.exit(f"Expected rows among {', '.join(ROWS)}, but got {', '.join(unknown)}")
    for name in names:
        r = ROWS[name]
        path = Path(data)/FILES[r.data] if r.data else None
        if path and not (data and path.exists()):
            print(f"{name}: left out, since there is no {FILES[r.data]} in {data or 'a data folder, which was not given'}")
            continue
        start,out = time.perf_counter(),Path(work)/f'{name}.jsonl'
        restore(name, out)
        get_learner,n = r.func(*([path] if path else []), *r.args),min(r.seeds, seeds or r.seeds)
        try: res = compare(get_learner, r.mixes(), r.n_epoch, r.lr, n, out=out, fit=r.fit, measure=r.measure)
        finally:
            with (Path(work)/'lock').open('w') as f: # for those who run rows side by side
                fcntl.flock(f, fcntl.LOCK_EX)
                save(name, out)
        print(f"\n{name}, {time.perf_counter()-start:.0f} s\n{res}\n", flush=True)

if __name__ == '__main__':
    p = ArgumentParser(description=main.__doc__)
    p.add_argument('data', nargs='?', default='', help="folder with the data sets; without it only the digits, which scikit-learn has")
    p.add_argument('--rows', default='', help=f"with commas between; by default all: {', '.join(ROWS)}")
    p.add_argument('--threads', type=int, help="of PyTorch")
    p.add_argument('--seeds', type=int, help="at most so many of a row; by default all")
    p.add_argument('--work', default=main.__defaults__[4], help="folder for rows that are not finished, %(default)s")
    main(**vars(p.parse_args()))
