"""Existing learned codecs on tersor's coders by changing one import: docs/learned_codecs.md.

tersor.compat.compressai_ans    compressai.ans
tersor.compat.torchac           torchac
"""
