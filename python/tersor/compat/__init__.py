"""What other packages have, on tersor's formats and coders.

Learned codecs, by changing one import (docs/learned_codecs.md):
tersor.compat.compressai_ans    compressai.ans
tersor.compat.torchac           torchac

Models of other tools, in and out (docs/exchange.md):
tersor.compat.gguf_import, gguf_export
tersor.compat.integer_import    GPTQ, AWQ, compressed-tensors
tersor.compat.packed_export     compressed-tensors
"""
