"Nothing grows with the number of batches, or of fits, beyond what grows without a mixer"
import gc, pytest, sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent.parent/'benchmarks'))
from fastai.basics import Callback
from helpers import MIXERS, fit, get_learn, hooks, kind_of, mixer
from soak import growth, soak

epochs = 6 # of 50 batches, counted after each second

@pytest.fixture(scope='module')
def plain(): return {o:growth(soak(None, epochs, o, times=3)) for o in ('image','tokens')}

@pytest.mark.parametrize('name', MIXERS)
def test_soak(name, plain):
    "Growth over 200 batches: a leak of one thing a batch would be 200"
    rows = soak(name, epochs, times=3)
    objs,tensors,size,hks,mb = growth(rows)
    plain_objs,plain_tensors,plain_size,_,plain_mb = plain[kind_of(name)]
    assert len(rows)==3 and hks==0
    assert tensors-plain_tensors<=6 and size-plain_size<4096 and objs-plain_objs<60 and mb-plain_mb<16

class Stop(Callback):
    run_valid = False
    def after_pred(self): raise KeyboardInterrupt

@pytest.mark.parametrize('name', MIXERS)
def test_many_fits(name, only_new):
    "Fits, whole and broken off, leave nothing behind each"
    learn,counts = get_learn(mixer(name), kind_of(name)),[]
    for i in range(45):
        try: fit(learn, cbs=Stop() if i%2 else None)
        except KeyboardInterrupt: pass
        assert not hooks(learn.model) and 'remove_cbs' not in vars(learn)
        if i in (4,44):
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert counts[1]-counts[0]<40
