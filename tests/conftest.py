"Every test starts from the same random numbers, on one thread, without a screen"
import os
os.environ.setdefault('MPLBACKEND', 'agg')
import pytest

@pytest.fixture(autouse=True)
def seeded():
    torch = pytest.importorskip('torch')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    import random, numpy as np
    random.seed(0)
    np.random.seed(0)
