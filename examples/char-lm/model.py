"""The model: an embedding, a gated recurrent layer, a score for each next character."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Vocabulary:
    """The characters of a text, in order; a character's number is its place."""

    characters: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """Every character that occurs."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> torch.Tensor:
        """Numbers of a text's characters: int64, one dimension."""
        number = {character: place for place, character in enumerate(self.characters)}
        return torch.tensor([number[character] for character in text])


class CharModel(nn.Module):
    """(batch, time) numbers in, (batch, time, vocabulary) scores out."""

    def __init__(self, vocabulary_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, hidden_size // 2)
        self.recurrent = nn.GRU(hidden_size // 2, hidden_size, batch_first=True)
        self.scores = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Scores of the next character at every place."""
        hidden, _ = self.recurrent(self.embedding(inputs))
        return self.scores(hidden)

    @torch.no_grad()
    def sample(self, vocabulary: Vocabulary, start: str, length: int, seed: int) -> str:
        """A text that the model makes up, `length` characters after `start`."""
        chance = torch.Generator().manual_seed(seed)
        said, state = start, None
        inputs = vocabulary.encode(start)[None]
        for _ in range(length):
            hidden, state = self.recurrent(self.embedding(inputs), state)
            likely = torch.softmax(self.scores(hidden[0, -1]), dim=0)
            inputs = torch.multinomial(likely, 1, generator=chance)[None]
            said += vocabulary.characters[int(inputs)]
        return said
