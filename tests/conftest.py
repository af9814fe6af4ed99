"Every test starts from the same random numbers, on one thread, without a screen"
import gc, os
os.environ.setdefault('MPLBACKEND', 'agg')
import pytest

@pytest.fixture
def only_new():
    "Let the garbage collector see but what is made from here on, which is faster"
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()

@pytest.fixture(autouse=True)
def seeded():
    torch = pytest.importorskip('torch')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    import random, numpy as np
    random.seed(0)
    np.random.seed(0)
