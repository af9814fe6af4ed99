"Everything public, meant to be star-imported after fastai's: `MixUp` and `CutMix` then are these"
from fastmix.draw import draw_perm, perm_within, draw_lam, draw_boxes, box_lam
from fastmix.mix import mixup_batch, cutmix_batch, mix_targets
from fastmix.loss import MixUpLoss
from fastmix.mixer import Mixer
from fastmix.callback import MixUp, CutMix
from fastmix.fmix import FMix
from fastmix.resizemix import ResizeMix
from fastmix.places import MixHere
from fastmix.manifold import ManifoldMixUp
from fastmix.output import OutputMixUp
from fastmix.choice import MixChoice
from fastmix.loop import PlainLoop
from fastmix.metric import MixAccuracy
from fastmix.stack import StackedModel
from fastmix.show import show_mixed_batch, plot_lam
from fastmix.compare import compare
