"""The passes over graphs; `metaop.compiler.pipeline.PASSES` lists them in order."""
