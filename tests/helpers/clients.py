"""Training scripts of other libraries.

What they train stands in a preamble of the test's own, and so does what ``oracle`` does before the
training, and ``ended`` after it.
"""

from __future__ import annotations

LIGHTNING = """
import lightning
class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net
    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
oracle(net)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
lightning.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(Net(), data)
ended(net)
"""
TRAINER = """
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
size = dict(n_layer=3, n_embd=32, n_head=2, vocab_size=50, n_positions=16)
model = GPT2LMHeadModel(GPT2Config(**size, use_cache=False, bos_token_id=1, eos_token_id=1))
oracle(model)
rows = [torch.randint(50, (16,)) for _ in range(32)]
data = [{"input_ids": row, "labels": row} for row in rows]
arguments = TrainingArguments("out", per_device_train_batch_size=4, gradient_accumulation_steps=2,
                              gradient_checkpointing=True, max_steps=4, report_to=[], use_cpu=True,
                              save_strategy="no")
Trainer(model, arguments, train_dataset=data).train()
ended(model)
"""
ACCELERATE = """
from accelerate import Accelerator
oracle(net)
accelerator = Accelerator(cpu=True, mixed_precision="bf16")
net, optimizer = accelerator.prepare(net, torch.optim.AdamW(net.parameters()))
for step in range(4):
    optimizer.zero_grad()
    accelerator.backward(nn.functional.cross_entropy(net(x), y))
    optimizer.step()
ended(net)
"""
