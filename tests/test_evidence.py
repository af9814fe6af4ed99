"What the docs say was measured, held to the runs in benchmarks/results/accuracy.csv"
import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from scipy import stats

ROOT = Path(__file__).parent.parent
RUNS = pd.read_csv(ROOT/'benchmarks'/'results'/'accuracy.csv', keep_default_na=False, na_values=[''])
LEAD = 'miou','balanced_accuracy','_rmse','accuracy'

def text(page):
    "All Markdown of a page on one line"
    cells = json.loads((ROOT/'nbs'/page).read_text())['cells']
    return ' '.join(' '.join(''.join(o['source']) for o in cells if o['cell_type']=='markdown').split())

def scores(row, metric=None):
    "`metric` of `row`, a line for each mix and a column for each seed; by default what leads the verdict"
    runs = RUNS[RUNS.row==row]
    metric = metric or next(o for o in LEAD if runs[o].notna().any())
    return runs.pivot(index='mix', columns='seed', values=metric)

def differences(row, metric=None, base='none', among=None):
    "Mean difference to `base` for each other mix, and whether it counts: p-values of paired t-tests below 0.05, by Holm's steps"
    v = scores(row, metric)
    pairs = {o: v.loc[[base,o]].dropna(axis=1).values for o in among or v.index if o!=base}
    p = {o: stats.ttest_rel(b, a).pvalue for o,(a,b) in pairs.items()}
    counts,n = set(),len(p)
    for i,o in enumerate(sorted(p, key=p.get)):
        if not p[o]*(n-i)<0.05: break
        counts.add(o)
    return {o: ((b-a).mean(), o in counts) for o,(a,b) in pairs.items()}

def gain(row, mix, metric=None): return 100*differences(row, metric)[mix][0]
def counts(row, mix, metric=None): return differences(row, metric)[mix][1]
def gains(mix, rows): return sorted(gain(o, mix) for o in rows if counts(o, mix))
def spans(mix, rows, low, high):
    "Do the differences of `mix` that count go from `low` to `high`, rounded?"
    gs = gains(mix, rows)
    return [round(gs[0]),round(gs[-1])]==[low,high]
def silent(rows, *mixes):
    "Does no difference count in these rows?"
    return not any(c for row in rows for mix,(_,c) in differences(row).items() if not mixes or mix in mixes)
def off(row, mix, digits=1): return round(gain(row, mix), digits)
def error(row, mix):
    "Difference of the error of quantities to no mix, in percent"
    v = scores(row).mean(axis=1)
    return 100*(v[mix]/v['none']-1)

WRONG = 'digits-20','digits-50','fashion-20','fashion-50'
