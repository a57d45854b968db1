#!/usr/bin/env python3
"""Writes divergence.json: KL divergence between two models over a text, as Hugging Face transformers computes it.

The reference is models/tessera-tiny, the model the same checkpoint with one matrix set to zero, which a test can do
without any library. Logits and everything made of them are float64. The text is written here, so that it is nobody's.

Needs numpy, torch and transformers.
"""

import itertools
import json
import pathlib

import numpy
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
CHECKPOINT = HERE.parent.parent / "models/tessera-tiny"
ZEROED = "model.layers.3.mlp.down_proj.weight"

PLACES = ["San Jose", "Concord", "Berkeley", "Phoenix", "Anaheim", "New York"]
TALKS = [
    ("I want to book a table for {n} in {place}.", "What time would you like to eat?", "At {hour} pm, please.",
     "I found a table at {hour}:30 pm. Should I reserve it?"),
    ("Find me a hotel in {place}.", "How many rooms do you need, and for which day?",
     "{n} rooms from March {hour}th on.", "There are {n} hotels with free rooms. The first has a pool."),
    ("How is the weather in {place} on the {hour}th?", "It will be {n}0 degrees with a light wind.",
     "Do I need an umbrella?", "No, there is only a {n} percent chance of rain."),
    ("I need a taxi to the airport of {place}.", "For how many people, and when?", "{n} of us, at {hour} in the morning.",
     "Your taxi is on its way and will be there in {n} minutes."),
]


def lines():
    result = []
    for number, (place, talk) in enumerate(itertools.product(PLACES, TALKS)):
        words = dict(place=place, n=2 + number % 7, hour=4 + number * 5 % 9)
        roles = itertools.cycle(("<|user|>", "<|assistant|>"))
        result.append("<|bos|>" + "".join(f"{role}{turn.format(**words)}<|end|>" for role, turn in zip(roles, talk))
                      + "<|eos|>")
    return result


def log_probabilities(model, ids):
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1], -1).numpy()


def main():
    torch.set_default_dtype(torch.float64)
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    reference = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float64).eval()
    model = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float64).eval()
    dict(model.named_parameters())[ZEROED].data.zero_()
    divergences, same_top, nats, reference_nats = [], [], [], []
    for line in lines():
        ids = tokenizer(line, add_special_tokens=False)["input_ids"]
        p, q = log_probabilities(reference, ids), log_probabilities(model, ids)
        divergences += list((numpy.exp(p) * (p - q)).sum(-1))
        same_top += list(p.argmax(-1) == q.argmax(-1))
        reference_nats += [-p[i, token] for i, token in enumerate(ids[1:])]
        nats += [-q[i, token] for i, token in enumerate(ids[1:])]
    count = len(divergences)
    more = numpy.subtract(nats, reference_nats)
    golden = {
        "zeroed": ZEROED, "lines": lines(), "tokens": count,
        "mean_kl": float(numpy.mean(divergences)),
        "mean_kl_error": float(numpy.std(divergences, ddof=1) / count ** 0.5),
        "median_kl": float(numpy.median(divergences)), "kl_99": float(numpy.quantile(divergences, 0.99)),
        "max_kl": float(numpy.max(divergences)), "top1_agreement": float(numpy.mean(same_top)),
        "nats": float(numpy.mean(nats)), "nats_error": float(numpy.std(nats, ddof=1) / count ** 0.5),
        "reference_nats": float(numpy.mean(reference_nats)), "ratio": float(numpy.exp(more.mean())),
        "ratio_error": float(numpy.exp(more.mean()) * numpy.std(more, ddof=1) / count ** 0.5),
    }
    (HERE / "divergence.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
