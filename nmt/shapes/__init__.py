"""The other shapes of a recurrent net, composed from the same encoder, decoder, cells, attention, loss and trainer.

    language_model   decoder alone: one to many, trained along a stream or on lines
    classifier       encoder alone: many to one, a class for a line of text
    tagger           a tag for each step, words of a translation or frames: many to many, in step
    captioner        a picture to many words: pictures, drawn with their captions

Only `run` reaches a shape, by the `task` of a recipe, when it is asked for. A shape module has

    KIND                            its kind of recipe
    job(recipe, hardware, folder)   what `run` trains
    evaluate(folder, changes)       what its test split says of a trained model
"""
