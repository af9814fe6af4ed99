"Nothing grows with the number of batches, or of fits, beyond what grows without a mixer"
import gc, pytest, sys, torch
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent.parent/'benchmarks'))
from helpers import MIXERS, fit, get_learn, hooks, kind_of, mixer
from soak import growth, soak

batches = 300

@pytest.fixture(scope='module')
def plain(): return {o:growth(soak(None, batches, o)[0]) for o in ('image','tokens')}

@pytest.mark.parametrize('name', MIXERS)
def test_soak(name, plain):
    rows,_ = soak(name, batches)
    (objs,tensors,size,hks,mb),(plain_objs,plain_tensors,plain_size,_,plain_mb) = growth(rows),plain[kind_of(name)]
    assert (tensors,size,hks)==(plain_tensors,plain_size,0)
    assert objs-plain_objs<batches/20 and mb-plain_mb<16

@pytest.mark.parametrize('name', MIXERS)
def test_many_fits(name):
    "Fits, whole and broken off, leave nothing behind each"
    def stop(self):
        if self.training: raise KeyboardInterrupt
    learn,counts = get_learn(mixer(name), kind_of(name)),[]
    learn.after_pred = None
    for i in range(24):
        try: fit(learn, cbs=[] if i%2 else type('Stop', (Callback,), dict(after_pred=stop))())
        except KeyboardInterrupt: pass
        assert not hooks(learn.model) and callable(learn.remove_cbs)
        if i%8==7:
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert counts[-1]-counts[0]<24
