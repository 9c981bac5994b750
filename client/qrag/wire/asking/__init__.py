"""Ways to ask beside one retrieval: several questions at once, answers by a language model, OpenAI's vector stores."""
