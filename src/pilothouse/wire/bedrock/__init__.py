"""
Converse of Amazon Bedrock: how it is asked and what it answers. Pure.

Source: the service model of botocore 1.44, `bedrock-runtime`, operations `Converse`
and `ConverseStream`; the framing is in `eventstream`.
"""
