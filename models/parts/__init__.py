"""What the architectures share.

translator          the contract: the base class of every architecture
batch               token ids, sentence lengths and batches
flops               FLOP arithmetic
accumulation        a batch in parts, whose gradients sum to that of the batch
optimization        settings of the optimizer and the learning-rate schedule
attention           every form of attention, with its equation
recurrent           fused recurrent layers and the LSTM cell
window              the window of words that perceptrons see
convolution         convolutions as dense products
mixture_of_experts  the mixture layer of moe, with its gates
stack               a typed list of layers
"""
