"""The marker tokens that give a trajectory its shape (reference: released rStar-Math code, `train_SFT.py`).

A trajectory is the concatenation of node texts:

    <code>
    a = 4 - 1
    <end_of_step>
    print(a)
    <end_of_code>
    <output>3<end_of_output>
    <answer>\\boxed{3}<end_of_answer>

A node ends with the marker it stopped on. The `<output>` part is never written by the policy: the verifier's output
is appended to the node that closed the code block.
"""

USER = "<|user|>"
ASSISTANT = "<|assistant|>"
CODE = "<code>"
END_OF_STEP = "<end_of_step>"
END_OF_CODE = "<end_of_code>"
OUTPUT = "<output>"
END_OF_OUTPUT = "<end_of_output>"
ANSWER = "<answer>"
END_OF_ANSWER = "<end_of_answer>"
END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"

MARKERS = (USER, ASSISTANT, CODE, END_OF_STEP, END_OF_CODE, OUTPUT, END_OF_OUTPUT, ANSWER, END_OF_ANSWER)
SPECIAL_TOKENS = (PADDING, END_OF_TEXT) + MARKERS

STEP_STOPS = (END_OF_STEP, END_OF_CODE, END_OF_ANSWER)  # one node a step: tree search
BLOCK_STOPS = (END_OF_CODE, END_OF_ANSWER)  # one node a code block: greedy decoding and plain sampling
