"""Whole numbers as inputs: an embedding and an LSTM from the search to a proved file."""

import numpy as np
import torch
from torch import Tensor, nn

import automc


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.rnn = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0][:, -1])


def test_tokens_travel_as_whole_numbers_from_the_data_to_the_proved_file(tmp_path):
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    model = Tagger().eval()
    inputs = {name: draw.integers(0, 20, (120, 6), dtype=np.int32) for name in ("train", "search", "test")}
    with torch.no_grad():
        data = {name: (x, model(torch.from_numpy(x).long()).argmax(1).numpy()) for name, x in inputs.items()}
    rules = [
        {"operator": "prune", "settings": {"prune_ratio": [0.0, 0.25]}},
        {"operator": "quantize", "settings": {"weight_bits": [6, 8]}},
    ]
    study = automc.search(
        model,
        data,
        space={"order": ["prune", "quantize"], "rules": rules},
        objectives={"top1": "maximize", "size_bytes": "minimize"},
        trials=6,
        workers=0,
        storage=f"{tmp_path}/studies.db",
    )
    assert study.baseline["top1"] == 1.0  # the labels are the network's own answers
    proof = study.export(study.picked("max:top1").number, tmp_path / "out")
    assert proof.passed
    assert proof.size_bytes < 0.7 * study.baseline["size_bytes"]  # the embedding stays as it is
