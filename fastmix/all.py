"Everything public, meant to be star-imported after fastai's: `MixUp` and `CutMix` then are these"
from fastmix.draw import draw_perm, draw_lam, draw_boxes, box_lam
from fastmix.mix import mixup_batch, cutmix_batch, mix_targets
from fastmix.loss import MixUpLoss
from fastmix.mixer import Mixer
from fastmix.callback import MixUp, CutMix
