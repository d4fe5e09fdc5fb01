"""
TensorFlow Serving's protocol: how a signature that generates text is asked, and what it answers.

Belongs here: which tensors stand for what, and the bodies of REST. What a signature
takes and gives, tensor by tensor, is written in `docs/howto/serve-tensorflow.md`.

Source: TensorFlow Serving's REST API guide and its published protos, release 2.21.
"""
